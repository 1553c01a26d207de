//! Processes whose programs die at any moment give every command once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::{
    Append, AppendError, Appended, ChangeStream, EventId, EventStore, Found, Head, Hint, Log,
    LogId, LogPage, Partition, ReadLog, ReadStream, Store, StoreError, StreamId, StreamPage,
    StreamState, ViewStore,
};
use tokio::sync::watch;

use super::shop::{Order, Shop, Stock, StockEvent};

/// A store that stops answering at one of its calls: before it does what it was asked, or after.
#[derive(Debug)]
struct Stops {
    store: Arc<dyn Store>,
    left: AtomicI64,
    stopped: watch::Sender<bool>,
}

impl Stops {
    async fn step(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.stopped.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.step().await;
        let answer = call.await;
        self.step().await;
        answer
    }
}

#[async_trait::async_trait]
impl EventStore for Stops {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.around(self.store.append(append)).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.around(self.store.read_stream(read)).await
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        self.around(self.store.find(partition, ids)).await
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        self.around(self.store.stream_state(stream)).await
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        self.around(self.store.change_stream(change)).await
    }
}

#[async_trait::async_trait]
impl Log for Stops {
    fn id(&self) -> LogId {
        self.store.id()
    }

    fn partitions(&self) -> u32 {
        self.store.partitions()
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        self.store.read(read).await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        self.store.head(partition).await
    }

    fn hint(&self) -> Hint {
        self.store.hint()
    }
}

impl Store for Stops {
    fn views(&self) -> Option<&dyn ViewStore> {
        self.store.views()
    }
}

pub(crate) async fn a_process_dropped_at_any_call_gives_commands_once() {
    for paid in [true, false] {
        let mut calls = 0;
        loop {
            let shop = Arc::new(Shop::new().await);
            shop.happens::<Stock>("tea", StockEvent::Delivered).await;
            shop.placed("7").await;
            if paid {
                shop.paid("7").await;
            } else {
                shop.clock.advance(TimeDelta::hours(1));
            }
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            // Whatever its connections do ends with the program.
            let opens = Arc::clone(&shop);
            let opened = async move {
                opens
                    .store
                    .another_handle_on(Arc::clone(&opens.clock) as _)
                    .await
            };
            let store = runtime.spawn(opened).await.unwrap();
            let stops = Arc::new(Stops {
                store,
                left: AtomicI64::new(calls),
                stopped: watch::Sender::new(false),
            });
            let in_program = Arc::clone(&shop);
            let on = Arc::clone(&stops);
            runtime.spawn(async move {
                let _program = in_program.program_on(on).await;
                std::future::pending::<()>().await;
            });
            let mut stopped = stops.stopped.subscribe();
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = shop.until("fulfilment-7", "$process.finished") => {}
            }
            let was_stopped = *stops.stopped.borrow();
            runtime.shutdown_background();
            shop.release_leases().await;

            let db = shop.after_kills(shop.program()).await;
            shop.after_kills(shop.until("fulfilment-7", "$process.finished"))
                .await;
            db.stop().await;
            let order = shop.told("order").await;
            let stock = shop.told("stock").await;
            if paid {
                assert_eq!(
                    order,
                    ["order.placed", "order.shipped"],
                    "stopped at {calls}"
                );
                assert_eq!(
                    stock,
                    ["stock.delivered", "stock.reserved"],
                    "stopped at {calls}"
                );
            } else {
                assert_eq!(
                    order,
                    ["order.placed", "order.cancelled"],
                    "stopped at {calls}"
                );
                assert_eq!(
                    stock,
                    ["stock.delivered", "stock.reserved", "stock.released"],
                    "stopped at {calls}"
                );
            }
            let process = shop.told("fulfilment").await;
            let expected = match paid {
                true => 7,
                false => 8,
            };
            assert_eq!(process.len(), expected, "stopped at {calls}: {process:?}");
            calls += 1;
            if !was_stopped {
                break;
            }
        }
        assert!(calls > 15, "it was dropped at {calls} calls");
    }
}

pub(crate) async fn many_processes_survive_repeated_kills() {
    let shop = Arc::new(Shop::new().await);
    for _ in 0..40 {
        shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    }
    let orders: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    for order in &orders {
        shop.placed(order).await;
        if **order < *"10" {
            shop.paid(order).await;
        }
    }
    shop.clock.advance(TimeDelta::hours(1));
    let mut events = shop.store.head(Partition(0)).await.unwrap().visible.get();
    for kill in 0..30 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let in_program = Arc::clone(&shop);
        runtime.spawn(async move {
            let _program = in_program.program().await;
            std::future::pending::<()>().await;
        });
        // Killed after some events more, wherever it is then.
        let mut hint = shop.store.hint();
        for _ in 0..50 {
            let head = shop.store.head(Partition(0)).await.unwrap().visible.get();
            if head >= events + kill % 7 {
                break;
            }
            hint.wait(Duration::from_millis(10)).await;
        }
        runtime.shutdown_background();
        shop.release_leases().await;
        events = shop.store.head(Partition(0)).await.unwrap().visible.get();
    }
    let db = shop.after_kills(shop.program()).await;
    for order in &orders {
        let stream = format!("fulfilment-{order}");
        shop.after_kills(shop.until(&stream, "$process.finished"))
            .await;
    }
    for order in &orders {
        let history = db
            .aggregate::<Order>(order)
            .history()
            .await
            .unwrap()
            .entries;
        let end = if **order < *"10" {
            "order.shipped"
        } else {
            "order.cancelled"
        };
        let told: Vec<_> = history
            .iter()
            .map(|entry| &*entry.record.event_type)
            .collect();
        assert_eq!(told, ["order.placed", end], "{order}");
    }
    let count = |told: &[String], wanted: &str| told.iter().filter(|of| *of == wanted).count();
    let stock = shop.told("stock").await;
    assert_eq!(
        (
            count(&stock, "stock.reserved"),
            count(&stock, "stock.released")
        ),
        (40, 30)
    );
    db.stop().await;
}
