//! A view that counts, for tests of read models.

use annals::prelude::*;
use annals_core::Partition;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
pub(crate) enum Counted {
    Counted { cents: i64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "sums", version = 1, events(Counted))]
pub(crate) struct Sum {
    pub(crate) records: u64,
    pub(crate) cents: i64,
    /// The last number of the key: order per key shows in it.
    pub(crate) last: i64,
    pub(crate) out_of_order: u64,
}

impl Project<Counted> for Sum {
    fn on(sum: &mut Row<'_, Self>, event: &Recorded<Counted>) -> Result<(), Poison> {
        let Counted::Counted { cents } = **event;
        if cents <= sum.last && sum.records > 0 {
            sum.out_of_order += 1;
        }
        sum.records += 1;
        sum.cents += cents;
        sum.last = cents;
        Ok(())
    }
}

/// Everything that a log holds now.
pub(crate) async fn now(db: &Annals) -> Token {
    let mut token = Token::new(db.store().id());
    for partition in (0..db.store().partitions()).map(Partition) {
        let head = db.store().head(partition).await.unwrap().visible;
        token = token.with(partition, head);
    }
    token
}
