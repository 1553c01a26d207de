//! What happened, as a topic: published from one store, and folded again by a program that has
//! nothing but the topic.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use annals::chrono::NaiveDate;
use annals::kafka::{Kafka, Relay, Topic, TopicSpec};
use annals::prelude::*;
use annals::{Failure, MemoryStore};

use crate::account::AccountEvent;
use crate::balances::{Balances, add, add_up, changed, up_to};
use crate::money::Money;
use crate::month::Month;
use crate::{store, views};

/// The topic of a URL that names none.
const TOPIC: &str = "bank-events";

/// Partitions of a topic that is made.
const PARTITIONS: u32 = 6;

/// By how much the balance of an account changed in a month, day by day: what
/// [`BalanceChange`](crate::balances::BalanceChange) is, from a topic. Its partitions have no
/// common past, so it keeps no history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "published-balances", version = 1, key = (Month, String), events(AccountEvent))]
struct PublishedChange {
    days: BTreeMap<u32, Money>,
}

impl Project<AccountEvent> for PublishedChange {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<(Month, String)>, Poison> {
        Ok(changed(event).into_iter().collect())
    }

    fn on(change: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        add(&mut change.days, event);
        Ok(())
    }
}

/// Publishes what is in the log and not in the topic yet. Returns how many events that were.
///
/// The relay has the name of the topic: what was published there stays known to
/// every program that publishes.
pub(crate) async fn publish(db: &Annals, to: &str) -> Result<u64, Box<dyn Error>> {
    let kafka = connect(to).await?;
    let topic: &'static str = topic_of(to).to_owned().leak();
    let spec = TopicSpec::named(topic)
        .partitions(PARTITIONS)
        .keep_for_ever();
    let relay = Relay::named(topic).only::<AccountEvent>().to(&kafka, spec);
    Ok(relay.catch_up(db).await?)
}

/// The balance of every account that had a transaction by then, from the topic alone.
pub(crate) async fn balances(
    from: &str,
    happened: Option<NaiveDate>,
) -> Result<Balances, Box<dyn Error>> {
    let kafka = connect(from).await?;
    let topic = Topic::named(topic_of(from)).cloud_events();
    let db = kafka
        .read(topic)
        .await?
        .with(PublishedChange::projection())
        .views_in(Arc::new(MemoryStore::new()))
        .caught_up()
        .start()
        .await?;
    let mut balances = Balances::new();
    let months = up_to(happened);
    let rows = || db.view::<PublishedChange>().rows().keys(months.clone());
    let read = views::each_row(rows, |row| {
        add_up(&mut balances, &row.key, &row.value.days, happened);
    })
    .await;
    db.stop().await;
    read?;
    Ok(balances)
}

async fn connect(url: &str) -> Result<Kafka, Box<dyn Error>> {
    match Kafka::connect(url).await {
        Err(error) if error.failure() == Failure::Unavailable => Err(format!(
            "no broker at {}: start one with `cargo xtask kafka up`, which prints its URL",
            store::shown(url)
        )
        .into()),
        connected => Ok(connected?),
    }
}

/// What follows the hosts of a URL.
fn topic_of(url: &str) -> &str {
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    let topic = place.split_once('/').map_or("", |(_, topic)| topic);
    if topic.is_empty() { TOPIC } else { topic }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_its_topic() {
        for (url, topic) in [
            ("kafka://127.0.0.1:9092", TOPIC),
            ("kafka://a,b:1/?tls=true", TOPIC),
            ("kafka://u:p@a/accounts?tls=true", "accounts"),
        ] {
            assert_eq!(topic_of(url), topic, "{url}");
        }
    }
}
