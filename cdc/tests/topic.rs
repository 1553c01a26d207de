//! Topics of a real broker as sources: what Debezium wrote there, and records as they are.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod world;

mod on_kafka {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use annals::cdc::debezium::Debezium;
    use annals::cdc::{Ingest, Records, TableOf, TableRow};
    use annals::kafka::{Kafka, NewRecord, Relay, Topic, TopicSpec};
    use annals::prelude::*;
    use annals::store::{Append, NewEvent, RecordedEvent};
    use annals_core::conformance::rounds;
    use annals_core::{EventId, Metadata, Tag};

    use super::world::{self, events, until};

    const BROKER: &str = "ANNALS_CDC_BROKER";
    const TOPIC: &str = "ANNALS_CDC_TOPIC";
    const FOLDER: &str = "ANNALS_CDC_FOLDER";

    fn broker() -> String {
        let bootstrap = std::env::var("ANNALS_TEST_KAFKA").expect(
            "ANNALS_TEST_KAFKA names no broker: run `cargo xtask test -p annals-cdc`, or set it to \
             what `cargo xtask kafka up` prints, without `kafka://`",
        );
        format!("kafka://{bootstrap}")
    }

    fn fresh(what: &str) -> String {
        format!("{what}-{}", EventId::random())
    }

    #[derive(TableRow, Clone, Debug, PartialEq)]
    #[table("public.t")]
    struct T {
        #[key]
        id: i64,
        v: String,
    }

    /// What Debezium writes for a change, by the number of the change.
    fn envelope(op: &str, id: u64, v: &str, lsn: u64) -> String {
        let after = match op {
            "d" => "null".to_owned(),
            _ => format!(r#"{{"id":{id},"v":"{v}"}}"#),
        };
        format!(
            r#"{{"op":"{op}","before":null,"after":{after},"source":{{"name":"srv","schema":"public","table":"t","txId":{lsn},"lsn":{lsn},"ts_ms":1700000000000}}}}"#
        )
    }

    /// Rows of these ids are inserted, updated, and every tenth of them deleted with a tombstone.
    async fn write(kafka: &Kafka, topic: &str, ids: std::ops::Range<u64>) {
        let publisher = kafka.publisher().unwrap();
        for id in ids {
            let record = || NewRecord::to(topic).key(format!(r#"{{"id":{id}}}"#));
            let change = |op, v, n| record().value(envelope(op, id, v, id * 10 + n));
            let mut records = vec![change("c", "a", 1), change("u", "b", 2)];
            if id % 10 == 0 {
                records.extend([change("d", "", 3), record().tombstone()]);
            }
            for record in records {
                publisher.queue(&record).await.unwrap();
            }
        }
        publisher.flush().await.unwrap();
    }

    async fn start(broker: &str, topic: &str, folder: &Path) -> Program {
        let kafka = Kafka::connect(broker).await.unwrap();
        let topic = kafka.read(Topic::named(topic)).await.unwrap();
        world::start_with_copy::<T>(folder, Debezium::from(&topic)).await
    }

    /// A process that is killed at the latest when it is dropped.
    struct Process(Child);

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The process that is killed: it takes in until then.
    #[tokio::test]
    #[ignore = "it is the process that the other test starts and kills"]
    async fn takes_in_until_it_is_killed() {
        let variable = |name| std::env::var(name).ok();
        if let (Some(broker), Some(topic), Some(folder)) =
            (variable(BROKER), variable(TOPIC), variable(FOLDER))
        {
            let _program = start(&broker, &topic, folder.as_ref()).await;
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_topic_of_debezium_is_taken_in_once_across_kills() {
        let (broker, topic) = (broker(), fresh("srv.public.t"));
        let kafka = Kafka::connect(&broker).await.unwrap();
        let spec = TopicSpec::named(&topic).partitions(3);
        kafka.ensure([spec]).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let db = world::open(folder.path()).await;
        let ids = rounds(900, 30_000);
        let steps = 3;
        let mut written = 0;
        for step in 1..=steps {
            let until_id = ids * step / steps;
            write(&kafka, &topic, written..until_id).await;
            written = until_id;
            let before = events(&db).await.len();
            let child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "on_kafka::takes_in_until_it_is_killed",
                    "--exact",
                    "--ignored",
                ])
                .env(BROKER, &broker)
                .env(TOPIC, &topic)
                .env(FOLDER, folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let child = Process(child.unwrap());
            until("it takes in more", || async {
                (events(&db).await.len() > before).then_some(())
            })
            .await;
            drop(child);
        }
        // A connector that begins again repeats what it did not know to be written.
        write(&kafka, &topic, ids - 50..ids).await;
        write(&kafka, &topic, ids..ids + 2).await;
        let program = start(&broker, &topic, folder.path()).await;
        until("the last row is there", || async {
            let rows = program.view::<TableOf<T>>();
            let row = rows.get(ids as i64 + 1).await.unwrap()?;
            (row.row().unwrap().v == "b").then_some(())
        })
        .await;
        let mut of_rows = BTreeMap::<u64, Vec<String>>::new();
        until("all of it is in", || async {
            let found = events(&program).await;
            (found.len() as u64 >= ids * 2 + ids / 10 + 5).then_some(())
        })
        .await;
        for event in events(&program).await {
            let what = event.event_type.rsplit('.').next().unwrap().to_owned();
            of_rows
                .entry(event.stream.id().parse().unwrap())
                .or_default()
                .push(what);
        }
        assert_eq!(of_rows.len() as u64, ids + 2);
        for (id, found) in of_rows {
            let wanted: &[&str] = match id % 10 {
                0 => &["inserted", "updated", "deleted"],
                _ => &["inserted", "updated"],
            };
            assert_eq!(found, wanted, "row {id}");
        }
        program.stop().await;
    }

    fn as_written(event: &RecordedEvent) -> RecordedEvent {
        let mut event = event.clone();
        event.position = Position::START;
        event.partition = annals_core::Partition(0);
        event.append_index = 0;
        event.recorded_at = event.occurred_at;
        event
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_is_had_back_from_its_topic() {
        let (broker, topic) = (broker(), fresh("back"));
        let kafka = Kafka::connect(&broker).await.unwrap();
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let there = world::open(first.path()).await;
        for number in 0..200 {
            let event = |what: &'static str| {
                NewEvent::json(what, format!(r#"{{"n":{number}}}"#))
                    .schema_version(2)
                    .tag("kind:test".parse::<Tag>().unwrap())
                    .metadata(Metadata::default().actor("ada").key("k", "ä\n"))
            };
            let stream = StreamId::new(format!("order-{}", number % 7)).unwrap();
            let append = Append::new(stream, [event("order.a"), event("order.b")]);
            there.store().append(append).await.unwrap();
        }
        let relay = Relay::named("out").to(&kafka, TopicSpec::named(&topic).partitions(2));
        let publishing = there.with(relay).start().await.unwrap();
        let log = until("the topic is there", || async {
            let topic = Topic::named(&topic).cloud_events();
            kafka.read(topic).await.ok()
        })
        .await;
        let take = || async {
            let copies = Ingest::named("copy").from(Records::of(&log));
            let here = world::open(second.path()).await;
            here.with(copies).start().await.unwrap()
        };
        let mut copy = take().await;
        until("some of it is back", || async {
            (!events(&copy).await.is_empty()).then_some(())
        })
        .await;
        // Where it goes on it has from its marks.
        copy.stop().await;
        drop(copy);
        copy = take().await;
        until("all of it is back", || async {
            (events(&copy).await.len() >= 400).then_some(())
        })
        .await;
        let by_stream = |found: Vec<RecordedEvent>| {
            let mut found: Vec<_> = found.iter().map(as_written).collect();
            found.sort_by_key(|event| (event.stream.clone(), event.version));
            found
        };
        let (had, back) = (events(&publishing).await, events(&copy).await);
        assert_eq!(by_stream(back), by_stream(had));
        tokio::time::timeout(Duration::from_secs(60), async {
            copy.stop().await;
            publishing.stop().await;
        })
        .await
        .unwrap();
    }
}
