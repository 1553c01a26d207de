//! The bank on a topic of Kafka, beside the bank on SQLite.

mod on_kafka {
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;
    use std::time::Duration;

    use annals::kafka::KafkaStore;
    use annals::prelude::*;
    use annals::store::{AppendError, Log as _, ReadStream};
    use annals::{CommandError, EventId, Partition, StreamId};

    use crate::account::Account;
    use crate::money::Money;
    use crate::tests::importing::EXCERPT;
    use crate::tests::printed::{QUESTIONS, printed};

    /// What a process is told to do that is killed.
    const IMPORT_INTO: &str = "BANK_IMPORT_INTO";

    /// A topic that no other test has, and a folder for local copies.
    struct Place {
        topic: String,
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            let broker =
                std::env::var("ANNALS_TEST_KAFKA").expect("`cargo xtask test` names a broker");
            Place {
                topic: format!("kafka://{broker}/bank-{}", EventId::random()),
                folder: tempfile::tempdir().unwrap(),
            }
        }

        /// The URL for a process that has a local copy of its own.
        fn url(&self, process: &str, owns: &str) -> String {
            let local = self.folder.path().join(process);
            format!(
                "{}?partitions=3&owns={owns}&advertise=http://{process}&local={}",
                self.topic,
                local.display()
            )
        }
    }

    fn on_sqlite(place: &Place) -> String {
        format!("sqlite:{}", place.folder.path().join("bank.db").display())
    }

    async fn is_equal(place: &Place, sqlite: &str, kafka: &str) {
        // What was known at a time is a question about one order of all events.
        for question in QUESTIONS
            .iter()
            .filter(|words| !words.contains(&"--known-at"))
        {
            let expected = printed(question, sqlite).await;
            let found = printed(question, kafka).await;
            match question[0] {
                // Its views have no history, so they are others.
                "rebuild" => assert_eq!(found.lines().count(), expected.lines().count()),
                _ => assert_eq!(found, expected, "{question:?}"),
            }
            assert!(!found.is_empty(), "{question:?} was not answered");
        }
        let known = printed(&["balances", "--known-at", "1999-01-01"], kafka).await;
        assert!(known.contains("no common past"), "{known}");
        // Of a single account every moment can be asked for, and the answers are the same.
        let readers = place.url("reader", "none");
        let (kafka, sqlite) = (Annals::open(&readers).await, Annals::open(sqlite).await);
        let (kafka, sqlite) = (kafka.unwrap(), sqlite.unwrap());
        for account in ["576", "704", "9188"] {
            let of = |db: &Annals| db.aggregate::<Account>(account);
            let (there, here) = (of(&kafka), of(&sqlite));
            let (there, here) = (there.load().await.unwrap(), here.load().await.unwrap());
            assert_eq!(*there, *here, "{account}");
            for version in [1, 3] {
                let at = Version::new(version);
                let there = of(&kafka).load().at_version(at).await.unwrap();
                let here = of(&sqlite).load().at_version(at).await.unwrap();
                assert_eq!(*there, *here, "{account} at {version}");
            }
            is_as_of_when_it_was_recorded(&kafka, account).await;
            is_as_of_when_it_was_recorded(&sqlite, account).await;
            let moment: annals::chrono::DateTime<annals::chrono::Utc> =
                "1993-06-30T00:00:00Z".parse().unwrap();
            let there = of(&kafka).load().valid_at(moment).await.unwrap();
            let here = of(&sqlite).load().valid_at(moment).await.unwrap();
            assert_eq!(*there, *here, "{account} in June");
        }
    }

    /// At the time at which an event was recorded, an account is what it was at the last version
    /// that was recorded by then.
    async fn is_as_of_when_it_was_recorded(db: &Annals, account: &str) {
        let stream = StreamId::new(format!("account-{account}")).unwrap();
        let page = db.store().read_stream(ReadStream::of(stream)).await;
        let events = page.unwrap().events;
        assert!(events.len() > 2, "{account} has {} events", events.len());
        for event in [&events[0], &events[2]] {
            let by_then = events
                .iter()
                .rfind(|other| other.recorded_at <= event.recorded_at);
            let of = db.aggregate::<Account>(account);
            let known = of.load().as_of(event.recorded_at).await.unwrap();
            let expected = of.load().at_version(by_then.unwrap().version);
            assert_eq!(*known, *expected.await.unwrap(), "{account}");
        }
    }

    #[cfg(feature = "postgres")]
    mod on_postgres {
        use super::{Place, on_sqlite};
        use crate::tests::both_stores::on_postgres::Schema;
        use crate::tests::importing::EXCERPT;
        use crate::tests::printed::printed;

        #[tokio::test(flavor = "multi_thread")]
        async fn its_read_models_can_be_on_postgres() {
            let (place, schema) = (Place::new(), Schema::new());
            let (sqlite, kafka) = (on_sqlite(&place), place.url("bank", "all"));
            let postgres = schema.url();
            let questions: [&[&str]; 4] = [
                &["import", EXCERPT],
                &["balances"],
                &["statements", "576"],
                &["volume", "--from", "1993-03-01"],
            ];
            for question in questions {
                let expected = printed(question, &sqlite).await;
                let there = [question, &["--views", &postgres]].concat();
                assert_eq!(printed(&there, &kafka).await, expected, "{question:?}");
            }
            schema.remove().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_bank_prints_the_same_on_kafka() {
        let place = Place::new();
        is_equal(&place, &on_sqlite(&place), &place.url("bank", "all")).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_elsewhere_says_where_to_go() {
        let place = Place::new();
        let owner = Annals::open(&place.url("owner", "all")).await.unwrap();
        let elsewhere = Annals::open(&place.url("elsewhere", "none")).await.unwrap();
        let alice = elsewhere.aggregate::<Account>("alice");
        let refused = alice.create(|account| account.open("Alice")).await;
        let Err(CommandError::Append(AppendError::NotOwner { owner: named })) = refused else {
            panic!("it does not own the partition: {refused:?}")
        };
        assert_eq!(named.as_deref(), Some("http://owner"));
        let alice = owner.aggregate::<Account>("alice");
        alice.create(|account| account.open("Alice")).await.unwrap();
        let deposit = alice.run(|account| account.deposit(Money::crowns(5)));
        deposit.await.unwrap();
        let import = printed(&["import", EXCERPT], &place.url("elsewhere-2", "none")).await;
        assert!(import.contains("cannot record line"), "{import}");
    }

    /// Not a test of its own: what the next one starts as another process.
    #[tokio::test(flavor = "multi_thread")]
    async fn imports_when_it_is_asked_to() {
        if let Ok(url) = std::env::var(IMPORT_INTO) {
            printed(&["import", EXCERPT], &url).await;
        }
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_process_finishes_the_import_of_a_killed_one() {
        let place = Place::new();
        let reader = {
            let owner = KafkaStore::open(&place.url("first", "all")).await.unwrap();
            drop(owner);
            KafkaStore::open(&place.url("reader", "none"))
                .await
                .unwrap()
        };
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tests::kept_on_kafka::on_kafka::imports_when_it_is_asked_to",
            ])
            .env(IMPORT_INTO, place.url("killed", "all"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let child = Killed(child);
        // Killed as soon as something of it is there.
        let reader = Arc::new(reader);
        let mut hint = reader.hint();
        loop {
            let mut seen = 0;
            for partition in (0..3).map(Partition) {
                seen += reader.head(partition).await.unwrap().visible.get();
            }
            if seen > 0 {
                break;
            }
            hint.wait(Duration::from_millis(20)).await;
        }
        drop(child);
        drop(reader);
        let rows = printed(&["import", EXCERPT], &on_sqlite(&place)).await;
        let other = place.url("other", "all");
        let again = printed(&["import", EXCERPT], &other).await;
        let number = |text: &str, what: &str| -> u64 {
            let mut parts = text.split(", ");
            let part = parts.find_map(|part| part.strip_suffix(what));
            part.map_or(0, |number| number.trim().parse().unwrap())
        };
        let done = number(&again, "rows imported") + number(&again, "already there");
        assert_eq!(done, number(&rows, "rows imported"), "{again}");
        assert!(number(&again, "already there") > 0, "{again}");
        is_equal(&place, &on_sqlite(&place), &other).await;
    }
}
