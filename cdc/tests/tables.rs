//! Tables of a real server as events and as read models of a program.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;
mod world;

mod on_postgres {
    use annals::cdc::{
        Because, Before, Change, Ingest, Ingests as _, Label, Outbox, TableHistory, TableOf,
        TableRow, Toasted, Transactions,
    };
    use annals::prelude::*;
    use annals::projections::{
        Listens, On, Process, ProcessSetup, ReactError, Reactor, ReactorSetup, Request, Step,
    };
    use annals::store::RecordedEvent;
    use tokio::sync::mpsc;

    use super::server::Server;
    use super::world::{self, following, source, until};

    #[derive(TableRow, Clone, Debug, PartialEq)]
    #[table("public.orders")]
    struct Order {
        #[key]
        id: i64,
        status: State,
        cents: i64,
        notes: Toasted<Option<String>>,
    }

    #[derive(Label, Clone, Debug, PartialEq)]
    enum State {
        Pending,
        Shipped,
    }

    const ORDERS: &str = "create table orders(id bigint primary key, status text not null, \
        cents bigint not null, notes text); alter table orders alter notes set storage external;";

    async fn row(program: &Program, id: i64) -> Option<Order> {
        let found = program.view::<TableOf<Order>>().get(id).await.unwrap();
        found.map(|row| row.row().unwrap())
    }

    #[tokio::test]
    async fn an_outbox_or_translation_needs_its_table() {
        let source = || source("postgres://nobody@localhost/shop", &["products", "raw"]);
        let refused = async |ingest: Ingest| {
            let folder = tempfile::tempdir().unwrap();
            let db = world::open(folder.path()).await;
            let refused = db.with(ingest).start().await;
            refused.err().unwrap().to_string()
        };
        let shop = || Ingest::named("shop").from(source());
        let why = "is not among the tables of ingest `shop`: it has public.products, public.raw";
        let outbox = refused(shop().outbox(Outbox::table("nosuch"))).await;
        let wanted = format!("outbox table `public.nosuch` {why}");
        assert!(outbox.contains(&wanted), "{outbox}");
        let nothing = |_: &Change<Order>| None::<(String, Shipment)>;
        let translated = refused(shop().translate(nothing)).await;
        let wanted = format!("translated table `public.orders` {why}");
        assert!(translated.contains(&wanted), "{translated}");
    }

    #[derive(TableRow, Clone, Debug, PartialEq)]
    #[table(r#""Ward"."Admi.ss-ions""#)]
    struct Admission {
        #[key]
        id: i64,
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_table_with_a_quoted_name_is_a_view() {
        let server = Server::start(&[]);
        let url = server.database("shop");
        let table = r#""Ward"."Admi.ss-ions""#;
        let setup = format!(
            "create schema \"Ward\"; create table {table}(id bigint primary key); \
             insert into {table} values (1)"
        );
        server.psql("shop", &setup);
        let folder = tempfile::tempdir().unwrap();
        let program = world::open(folder.path())
            .await
            .with(Ingest::named("shop").from(source(&url, &[table])))
            .with(TableOf::<Admission>::projection())
            .start()
            .await
            .unwrap();
        following(&program).await;
        server.psql("shop", &format!("insert into {table} values (2)"));
        for id in [1, 2] {
            until("it is a row", || async {
                program.view::<TableOf<Admission>>().get(id).await.unwrap()
            })
            .await;
        }
        assert_eq!(Admission::CATEGORY, "Ward.Admi%2Ess%2Dions");
        assert_eq!(Admission::table(), annals::cdc::TableName::parse(table));
        program.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_column_of_a_domain_has_one_type() {
        let server = Server::start(&[]);
        let url = server.database("shop");
        let setup = "create domain address as text; create domain home as address; \
            create domain moods as int[]; \
            create table places(id bigint primary key, a address, h home, m moods); \
            insert into places values (1, 'a', 'h', '{1}')";
        server.psql("shop", setup);
        let folder = tempfile::tempdir().unwrap();
        let program = world::start(folder.path(), source(&url, &["places"])).await;
        following(&program).await;
        server.psql("shop", "insert into places values (2, 'a', 'h', '{1}')");
        world::ids_of(&program, "public.places.inserted", 1).await;
        let events = world::events(&program).await.into_iter();
        let schemas = events.filter(|event| &*event.event_type == "public.places.schema");
        let schemas: Vec<_> = schemas
            .map(|event| String::from_utf8(event.payload.to_vec()).unwrap())
            .collect();
        assert_eq!(schemas.len(), 1, "{schemas:?}");
        assert_eq!(schemas[0].matches("pg_catalog.text").count(), 2);
        program.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_table_is_a_view_that_follows() {
        let server = Server::start(&[]);
        let url = server.database("shop");
        server.psql("shop", ORDERS);
        server.psql(
            "shop",
            "insert into orders values (1, 'pending', 100, repeat('n', 9000))",
        );
        let folder = tempfile::tempdir().unwrap();
        let program = world::open(folder.path())
            .await
            .with(Ingest::named("shop").from(source(&url, &["orders"])))
            .with(TableOf::<Order>::projection())
            .with(TableHistory::<Order>::projection())
            .start()
            .await
            .unwrap();
        following(&program).await;
        server.psql(
            "shop",
            "insert into orders values (42, 'pending', 700, null);
             update orders set status = 'shipped' where id = 1;
             update orders set id = 2 where id = 1;
             delete from orders where id = 42;
             insert into orders values (43, 'pending', 5, 'x');",
        );
        until("the last insert is a row", || async {
            row(&program, 43).await
        })
        .await;
        assert_eq!(row(&program, 42).await, None);
        assert_eq!(row(&program, 1).await, None);
        // Of two updates that did not send it, and under another key, the long value is kept.
        let notes = Toasted::Value(Some("n".repeat(9000)));
        let moved = Order {
            id: 2,
            status: State::Shipped,
            cents: 100,
            notes,
        };
        assert_eq!(row(&program, 2).await, Some(moved));

        let deleted = world::events(&program).await;
        let deleted = deleted
            .iter()
            .find(|of| &*of.event_type == "public.orders.deleted")
            .unwrap();
        let at = annals::Moment::from(deleted.position.minus(1));
        let history = program.view::<TableHistory<Order>>();
        let then = until("the history is there", || async {
            history.get(42).as_of(at.clone()).await.unwrap()
        })
        .await;
        assert_eq!(then.row().unwrap().cents, 700);
        until("the deletion is folded", || async {
            history.get(42).await.unwrap().is_none().then_some(())
        })
        .await;

        server.psql("shop", "truncate orders");
        until("no row is left", || async {
            row(&program, 43).await.is_none().then_some(())
        })
        .await;
        assert_eq!(row(&program, 2).await, None);
        program.stop().await;
    }

    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "parcel")]
    enum Parcel {
        Wanted { order: i64 },
    }

    #[derive(Default)]
    struct Parcels;

    impl Process for Parcels {
        const NAME: &'static str = "parcels";
        type Event = Parcel;

        fn listens() -> Listens<Parcels> {
            Listens::new().to::<Change<Order>>()
        }

        fn apply(&mut self, _: &Parcel) {}
    }

    impl On<Change<Order>> for Parcels {
        fn on(&self, event: &Recorded<Change<Order>>) -> Vec<Step<Parcels>> {
            match &**event {
                Change::Inserted { after } => {
                    vec![Step::emit(Parcel::Wanted { order: after.id })]
                }
                _ => vec![],
            }
        }
    }

    struct Bell(mpsc::UnboundedSender<i64>);

    impl Reactor for Bell {
        const NAME: &'static str = "bell";
        type Event = Change<Order>;

        async fn react(
            &self,
            event: &Recorded<Change<Order>>,
            _: &Request,
        ) -> Result<(), ReactError> {
            if let Change::Inserted { after } = &**event {
                self.0.send(after.id).map_err(ReactError::permanent)?;
            }
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reactors_and_processes_follow_a_captured_table() {
        let server = Server::start(&[]);
        let url = server.database("shop");
        server.psql("shop", ORDERS);
        let folder = tempfile::tempdir().unwrap();
        let (ring, mut rung) = mpsc::unbounded_channel();
        let program = world::open(folder.path())
            .await
            .with(Ingest::named("shop").from(source(&url, &["orders"])))
            .with(ReactorSetup::of(Bell(ring)))
            .with(ProcessSetup::<Parcels>::new())
            .start()
            .await
            .unwrap();
        following(&program).await;
        server.psql("shop", "insert into orders values (7, 'pending', 5, null)");
        until("it is told", || {
            let told = rung.try_recv().ok();
            async move { told.filter(|id| *id == 7) }
        })
        .await;
        until("it is wanted", || async {
            let events = world::events(&program).await;
            let mut wanted = events
                .iter()
                .filter(|of| &*of.event_type == "parcel.wanted");
            wanted.next().filter(|of| of.stream.id() == "7").map(drop)
        })
        .await;
        program.stop().await;
    }

    #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
    #[event(category = "shipment")]
    enum Shipment {
        Sent { order: i64 },
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn changes_become_what_they_mean_in_the_same_append() {
        let server = Server::start(&[]);
        let url = server.database("shop");
        server.psql("shop", ORDERS);
        server.psql(
            "shop",
            "alter table orders replica identity full;
             create table outbox(id uuid primary key, aggregatetype text, aggregateid text, \
             type text, payload jsonb);
             create table raw(id text primary key, kind text, of text, name text, body bytea, \
             at timestamptz, trace text);
             insert into orders values (1, 'pending', 100, null);",
        );
        let folder = tempfile::tempdir().unwrap();
        let shipped = |change: &Change<Order>| match change {
            Change::Updated {
                before: Before::Row(was),
                after,
            } if was.status == State::Pending && after.status == State::Shipped => Some((
                format!("shipment-{}", after.id),
                Shipment::Sent { order: after.id },
            )),
            _ => None,
        };
        let ingest = Ingest::named("shop")
            .from(source(&url, &["orders", "outbox", "raw"]))
            .translate(shipped)
            .outbox(Outbox::table("public.outbox"))
            .outbox(
                Outbox::table("raw")
                    .aggregate_type("kind")
                    .aggregate_id("of")
                    .event_type("name")
                    .payload("body")
                    .timestamp("at")
                    .tracing("trace"),
            );
        let db = world::open(folder.path()).await;
        let program = db.with(ingest).start().await.unwrap();
        following(&program).await;
        server.psql(
            "shop",
            "begin;
             update orders set status = 'shipped';
             insert into outbox values ('0190a8b0-5b8c-7cc4-9b3e-3f1d8a4b2c11', 'invoice', '7', \
             'invoice.sent', '{\"cents\": 100}');
             delete from outbox;
             insert into raw values ('a1', 'scan', '9', 'scan.made', '\\x00ff7b', \
             '2020-02-29 12:00:00+02', '00-4bf9');
             select pg_logical_emit_message(true, 'annals', \
             '{\"stream\":\"mail-1\",\"type\":\"mail.sent\",\"payload\":{\"to\":\"ada\"}}');
             commit;",
        );
        let found = until("all of it is there", || async {
            let events = world::events(&program).await;
            events
                .iter()
                .any(|of| &*of.event_type == "mail.sent")
                .then_some(events)
        })
        .await;
        let last: Vec<_> = found.iter().rev().take(5).rev().collect();
        let types: Vec<_> = last.iter().map(|event| &*event.event_type).collect();
        let sent = [
            "shipment.sent",
            "public.orders.updated",
            "invoice.sent",
            "scan.made",
            "mail.sent",
        ];
        assert_eq!(types, sent);
        assert_eq!(last[0].stream.as_str(), "shipment-1");
        assert_eq!(
            last[2].id.to_string(),
            "0190a8b0-5b8c-7cc4-9b3e-3f1d8a4b2c11"
        );
        assert_eq!(last[2].payload, br#"{"cents": 100}"#.as_slice());
        assert_eq!(last[3].stream.as_str(), "scan-9");
        assert_eq!(last[3].payload, [0x00, 0xff, 0x7b].as_slice());
        assert_eq!(&*last[3].codec, "bytes");
        assert_eq!(
            last[3].occurred_at.to_rfc3339(),
            "2020-02-29T10:00:00+00:00"
        );
        assert_eq!(last[3].metadata.keys["tracing"], "00-4bf9");
        assert_eq!(last[4].payload, br#"{"to":"ada"}"#.as_slice());
        // One transaction of theirs is one append here.
        assert!(
            last.iter()
                .map(|event| event.append_index)
                .is_sorted_by(|a, b| a + 1 == *b)
        );
        assert!(!found.iter().any(|event| {
            ["public.outbox", "public.raw"]
                .iter()
                .any(|table| event.event_type.starts_with(table))
        }));
        let gone = Change::<Order>::Deleted {
            before: Before::Unknown,
            because: Because::Sweep,
        };
        assert_eq!(gone.shape().event_type, "public.orders.deleted");
        program.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_translation_knows_the_row_that_was_not_sent() {
        let server = Server::start(&[]);
        let url = server.database("shop");
        server.psql("shop", ORDERS);
        let folder = tempfile::tempdir().unwrap();
        let shipped = |was: Option<&Order>, change: &Change<Order>| match change {
            Change::Updated { after, .. }
                if was.is_some_and(|was| was.status == State::Pending)
                    && after.status == State::Shipped =>
            {
                let sent = Shipment::Sent { order: after.id };
                Some((format!("shipment-{}", after.id), sent))
            }
            _ => None,
        };
        let ingest = Ingest::named("shop")
            .from(source(&url, &["orders"]))
            .large_values_as_digest("orders", "notes")
            .translate_known(shipped);
        let db = world::open(folder.path()).await;
        let program = db.with(ingest).start().await.unwrap();
        following(&program).await;
        server.psql(
            "shop",
            "insert into orders values (1, 'pending', 1, 'abc');
             begin;
             insert into orders values (2, 'pending', 2, null);
             update orders set status = 'shipped' where id = 2;
             update orders set cents = 3 where id = 2;
             commit;
             update orders set status = 'shipped', id = 5 where id = 1;
             insert into orders values (9, 'pending', 1, null);",
        );
        world::ids_of(&program, "public.orders.inserted", 3).await;
        assert_eq!(world::ids(&program, "shipment.sent").await, [2, 5]);

        // Each transaction of theirs comes out of the log in whole.
        let mut transactions = Transactions::of(program.events().pages());
        let mut found = Vec::new();
        while let Some(events) = transactions.next().await.unwrap() {
            let of_source = |of: &RecordedEvent| of.metadata.keys.contains_key("cdc.commit");
            found.extend(events.iter().any(of_source).then_some(events.len()));
        }
        // With the first row its schema comes; a changed key is two events.
        assert_eq!(found, [2, 4, 3, 1]);

        let stored = world::events(&program).await;
        let first = stored
            .iter()
            .find(|of| of.stream.as_str() == "public.orders-1")
            .unwrap();
        let payload = std::str::from_utf8(&first.payload).unwrap();
        assert!(
            payload.contains(r#""notes":"sha256:ba7816bf8f01cfea"#),
            "{payload}"
        );
        program.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_value_that_no_event_can_hold_is_named() {
        let server = Server::start(&[]);
        let url = server.database("shop");
        server.psql("shop", ORDERS);
        let folder = tempfile::tempdir().unwrap();
        let program = world::start(folder.path(), source(&url, &["orders"])).await;
        following(&program).await;
        server.psql(
            "shop",
            "insert into orders values (1, 'pending', 1, repeat('x', 17 * 1024 * 1024));
             insert into orders values (2, 'pending', 1, null);",
        );
        let why = world::stopped(&program).await;
        let remedy = "large_values_as_digest(\"public.orders\", \"notes\")";
        assert!(why.contains(remedy) && why.contains("17825792"), "{why}");
        // The other way out that it names.
        let at = why.split_once("(commit ").unwrap().1;
        let (commit, rest) = at.split_once(", record ").unwrap();
        let record = rest.split_once(':').unwrap().0;
        let shop = program.ingest("shop").unwrap();
        let skipped = shop.skip(commit.parse().unwrap(), record.parse().unwrap(), "a scan");
        skipped.await.unwrap();
        assert_eq!(
            world::ids_of(&program, "public.orders.inserted", 1).await,
            [2]
        );
        program.stop().await;
    }
}
