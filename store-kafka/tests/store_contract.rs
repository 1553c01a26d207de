//! The contract of a store, on a real broker.

#![cfg(feature = "store")]
#![allow(clippy::unwrap_used)] // A fixture that cannot be made fails its test.

#[path = "it/broker.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod broker;

use std::sync::Arc;

use annals_core::conformance::Fixture;
use annals_core::{Clock, Store};
use annals_kafka::KafkaStore;
use annals_kafka::store::{Options, Owns};
use async_trait::async_trait;
use tempfile::TempDir;

/// A topic and a folder of its own.
#[derive(Debug)]
struct OnKafka {
    topic: String,
    folder: TempDir,
}

impl OnKafka {
    fn new() -> OnKafka {
        OnKafka {
            topic: broker::fresh("store"),
            folder: TempDir::new().unwrap(),
        }
    }
}

#[async_trait]
impl Fixture for OnKafka {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        let options = Options::new(broker::url(), &self.topic, self.folder.path())
            .partitions(3)
            .owns(Owns::All)
            .clock(clock);
        Arc::new(KafkaStore::open_with(options).await.unwrap())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

mod on_kafka {
    annals_core::conformance! {
        fixture: super::OnKafka::new(),
        traits: [],
    }
}
