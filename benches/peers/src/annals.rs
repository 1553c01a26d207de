//! Annals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_core::{
    Append, EventStore, Expected, Log, NewEvent, Position, ReadLog, StreamId, Version,
};
use annals_postgres::PostgresStore;

use crate::server::{Database, PAUSED};
use crate::{Outcome, Peer};

pub(crate) struct Annals(PostgresStore);

impl Peer for Annals {
    const NAME: &'static str = "annals";
    const TABLE: &'static str = "annals.event";

    async fn open(database: &Database, _clients: u32) -> Outcome<Annals> {
        Ok(Annals(PostgresStore::connect(&database.url()).await?))
    }

    fn is_paused() -> String {
        format!("exists (select from annals.stream where key = new.stream and name = '{PAUSED}')")
    }

    async fn append(&self, stream: &str, version: u64, cents: i64) -> Outcome<()> {
        let event = NewEvent::json(
            "account.deposited",
            format!("{{\"cents\":{cents}}}").into_bytes(),
        );
        let append = Append::new(StreamId::new(stream)?, [event])
            .expecting(Expected::Version(Version::new(version)));
        self.0.append(append).await?;
        Ok(())
    }

    async fn follow(&self, delivered: Arc<AtomicU64>) -> Outcome<bool> {
        let store = self.0.clone();
        tokio::spawn(async move {
            let mut at = Position::START;
            let mut hint = store.hint();
            while let Ok(page) = store.read(ReadLog::after(at)).await {
                delivered.fetch_add(page.events.len() as u64, Ordering::Relaxed);
                at = page.scanned;
                if page.end {
                    hint.wait(Duration::from_millis(100)).await;
                }
            }
        });
        Ok(true)
    }
}
