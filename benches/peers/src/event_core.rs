//! eventcore: its store below the command loop, and its reader, which goes by ids that are made in
//! the clients.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventcore::postgres::{MaxConnections, PostgresConfig, PostgresEventStore};
use eventcore_types::{
    BatchSize, Event, EventFilter, EventPage, EventReader, EventStore, StreamId, StreamVersion,
    StreamWrites,
};
use serde::{Deserialize, Serialize};

use crate::server::{Database, PAUSED};
use crate::{Outcome, Peer};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Deposited {
    account: StreamId,
    cents: i64,
}

impl Event for Deposited {
    fn stream_id(&self) -> &StreamId {
        &self.account
    }

    fn event_type_name() -> &'static str {
        "deposited"
    }
}

pub(crate) struct EventCore(Arc<PostgresEventStore>);

impl Peer for EventCore {
    const NAME: &'static str = "eventcore";
    const TABLE: &'static str = "eventcore_events";

    async fn open(database: &Database, clients: u32) -> Outcome<EventCore> {
        let clients = MaxConnections::new(NonZeroU32::new(clients).ok_or("no clients")?);
        let config = PostgresConfig {
            max_connections: clients,
            ..PostgresConfig::default()
        };
        let store = PostgresEventStore::with_config(database.url(), config).await?;
        store.migrate().await;
        Ok(EventCore(Arc::new(store)))
    }

    fn is_paused() -> String {
        format!("new.stream_id = '{PAUSED}'")
    }

    async fn append(&self, stream: &str, version: u64, cents: i64) -> Outcome<()> {
        let account = StreamId::try_new(stream.to_owned())?;
        let writes = StreamWrites::new()
            .register_stream(account.clone(), StreamVersion::new(version as usize))?
            .append(Deposited { account, cents })?;
        self.0.append_events(writes).await?;
        Ok(())
    }

    async fn follow(&self, delivered: Arc<AtomicU64>) -> Outcome<bool> {
        let store = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut page = EventPage::first(BatchSize::new(1_000));
            while let Ok(events) = store
                .read_events::<Deposited>(EventFilter::all(), page.clone())
                .await
            {
                delivered.fetch_add(events.len() as u64, Ordering::Relaxed);
                match events.last() {
                    Some((_, position)) => {
                        page = EventPage::after(*position, BatchSize::new(1_000))
                    }
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        Ok(true)
    }
}
