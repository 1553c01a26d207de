//! What happened, as a topic: published from one store, and folded again by a program that has
//! nothing but the topic.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use annals::chrono::NaiveDate;
use annals::kafka::{Kafka, Relay, Topic, TopicSpec};
use annals::prelude::*;
use annals::{Failure, MemoryStore, Partition, StoreError};

use crate::account::AccountEvent;
use crate::balances::{Balances, CurrentChange, add_up, up_to};
use crate::views;

/// The topic of a URL that names none.
const TOPIC: &str = "bank-events";

/// Partitions of a topic that is made.
const PARTITIONS: u32 = 6;

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
        .with(CurrentChange::projection())
        .views_in(Arc::new(MemoryStore::new()))
        .caught_up()
        .start()
        .await?;
    let mut balances = Balances::new();
    let months = up_to(happened);
    let rows = || db.view::<CurrentChange>().rows().keys(months.clone());
    let read = views::each_row(rows, |row| {
        add_up(&mut balances, &row.key, &row.value.days, happened);
    })
    .await;
    let found = db.view::<CurrentChange>().rows().limit(1).await;
    let records = records(&db).await;
    db.stop().await;
    read?;
    if found?.rows.is_empty() {
        let topic = topic_of(from);
        return Err(match records? {
            0 => format!("topic `{topic}` is empty: `bank -- publish` fills one"),
            _ => format!(
                "topic `{topic}` holds no events of the bank: name one that `bank -- publish` \
                 filled"
            ),
        }
        .into());
    }
    Ok(balances)
}

/// How far a log goes, in all its partitions.
async fn records(db: &Annals) -> Result<u64, StoreError> {
    let log = db.store();
    let mut records = 0;
    for partition in (0..log.partitions()).map(Partition) {
        records += log.head(partition).await?.visible.get();
    }
    Ok(records)
}

/// Leaves the groups of a store on Kafka, which would keep its partitions for 45 s.
pub(crate) async fn leave() {
    annals::kafka::left_groups(Duration::from_secs(5)).await;
}

async fn connect(url: &str) -> Result<Kafka, Box<dyn Error>> {
    match Kafka::connect(url).await {
        Err(error) if error.failure() == Failure::Unavailable => {
            Err(format!("{error}; `cargo xtask kafka up` starts one, and prints its URL").into())
        }
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
