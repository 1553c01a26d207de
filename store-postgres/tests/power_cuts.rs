//! The server is killed again and again under processes that append and processes that read: what a
//! reader was given stays, what was acknowledged is there, under its own stream and type, and
//! positions are dense.
//!
//! The test starts itself as its writers and readers, and learns from what they print what was
//! acknowledged and given. `ANNALS_TEST_LONG=1` makes fifty rounds.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod outage;
mod server;

/// Tests that stop the server. They are skipped by this name where it may not be stopped.
mod server_restarts {
    use std::collections::{HashMap, HashSet};
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use annals_core::{
        Append, AppendError, EventId, EventStore, Failure, Log, NewEvent, Position, ReadLog,
        ReadStream, RecordedEvent, StreamId,
    };
    use annals_postgres::{Options, PostgresStore, sqlx};
    use sqlx::postgres::PgConnectOptions;
    use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

    use crate::outage::{control, kill_all, rounds};
    use crate::server::{self, Schema};

    const SCHEMA: &str = "ANNALS_POWER_CUTS_SCHEMA";
    const NUMBER: &str = "ANNALS_POWER_CUTS_NUMBER";

    const WRITERS: u64 = 6;
    const READERS: u64 = 2;
    /// How many appends are acknowledged before the server is killed, and after it is back.
    const APPENDS: usize = 100;
    /// A process that has not recovered by then never will.
    const FOR_EVER: Duration = Duration::from_secs(120);

    /// What is told of an event: its position, id, stream and type.
    type Line = (u64, String);

    /// Flushes take their time, so that there is much to lose.
    fn connect_options() -> PgConnectOptions {
        let connect: PgConnectOptions = server::url().parse().unwrap();
        connect.options([("commit_delay", "2000"), ("commit_siblings", "0")])
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    /// The schema and the number of a process; none when a person runs all ignored tests.
    fn given() -> Option<(String, u64)> {
        Some((
            std::env::var(SCHEMA).ok()?,
            std::env::var(NUMBER).ok()?.parse().ok()?,
        ))
    }

    async fn store(schema: &str) -> PostgresStore {
        let options = Options::new(connect_options()).schema(schema).unwrap();
        let options = options.readers(2).connect_timeout(FOR_EVER);
        PostgresStore::connect_with(options).await.unwrap()
    }

    fn say(lines: &str) {
        let mut out = std::io::stdout().lock();
        out.write_all(lines.as_bytes())
            .and_then(|()| out.flush())
            .unwrap();
    }

    fn line(word: &str, position: Position, id: EventId, stream: &StreamId, kind: &str) -> String {
        format!(
            "\n{word} {} {} {stream} {kind}\n",
            position.get(),
            id.as_uuid()
        )
    }

    fn line_of(event: &RecordedEvent) -> String {
        let kind = &event.event_type;
        line("given", event.position, event.id, &event.stream, kind)
    }

    fn is_passing(error: &annals_core::StoreError) -> bool {
        error.failure() == Failure::Unavailable
    }

    #[test]
    #[ignore = "it is a process that the other tests start and kill"]
    fn writes() {
        let Some((schema, number)) = given() else {
            return;
        };
        runtime().block_on(async {
            let store = store(&schema).await;
            let mut pause = tokio::time::interval(Duration::from_millis(5));
            for n in 0_u64.. {
                // Every fourth stream and every eighth type is new.
                let stream = StreamId::new(format!("s{number}-{}", n / 4)).unwrap();
                let kind = format!("t{number}.n{}", n / 8);
                let event = NewEvent::json(kind.clone(), b"{}".as_slice());
                let append = Append::new(stream.clone(), [event]);
                loop {
                    match store.append(append.clone()).await {
                        Ok(appended) => {
                            let placed = appended.last();
                            let (at, id) = (placed.position, placed.id);
                            say(&line("acknowledged", at, id, &stream, &kind));
                            break;
                        }
                        Err(AppendError::Unknown(_)) => {}
                        Err(AppendError::Store(error)) if is_passing(&error) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                    pause.tick().await;
                }
            }
        });
    }

    /// Reads the log, the streams of what it was given, and where it is to be found.
    #[test]
    #[ignore = "it is a process that the other tests start and kill"]
    fn reads() {
        let Some((schema, _)) = given() else {
            return;
        };
        runtime().block_on(async {
            let store = store(&schema).await;
            let mut hint = store.hint();
            let mut at = Position::START;
            let mut pause = tokio::time::interval(Duration::from_millis(5));
            loop {
                match read(&store, &mut at).await {
                    Ok(true) => hint.wait(Duration::from_millis(5)).await,
                    Ok(false) => {}
                    Err(error) => {
                        assert!(is_passing(&error), "{error:?}");
                        pause.tick().await;
                    }
                }
            }
        });
    }

    async fn read(
        store: &PostgresStore,
        at: &mut Position,
    ) -> Result<bool, annals_core::StoreError> {
        let page = store.read(ReadLog::after(*at)).await?;
        say(&page.events.iter().map(line_of).collect::<String>());
        *at = page.scanned;
        if let Some(last) = page.events.last() {
            let of = ReadStream::of(last.stream.clone()).backward();
            let newer = store.read_stream(of).await?;
            say(&newer.events.iter().map(line_of).collect::<String>());
        }
        Ok(page.end)
    }

    /// The control: a reader that goes by what is visible.
    #[test]
    #[ignore = "it is a process that the other tests start and kill"]
    fn reads_what_is_visible() {
        let Some((schema, _)) = given() else {
            return;
        };
        let select = "select event.position, event.id::text, stream.name, kind.type
            from annals.event
            join annals.stream on stream.key = event.stream
            join annals.kind on kind.key = event.kind
            where event.position > $1 order by event.position";
        let select = select.replace("annals.", &format!("\"{schema}\"."));
        runtime().block_on(async {
            let mut at = 0_i64;
            let mut pause = tokio::time::interval(Duration::from_millis(5));
            loop {
                pause.tick().await;
                let Ok(mut connection) = PgConnection::connect_with(&connect_options()).await
                else {
                    continue;
                };
                while let Ok(rows) = sqlx::query(AssertSqlSafe(select.clone()))
                    .bind(at)
                    .fetch_all(&mut connection)
                    .await
                {
                    for row in &rows {
                        at = row.get(0);
                        let (id, stream, kind): (String, String, String) =
                            (row.get(1), row.get(2), row.get(3));
                        say(&format!("\ngiven {at} {id} {stream} {kind}\n"));
                    }
                }
            }
        });
    }

    /// A process of the test, killed when it is dropped.
    struct Process(Child);

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// What processes have printed so far.
    #[derive(Debug, Default)]
    struct Printed {
        acknowledged: Vec<Line>,
        given: Vec<Line>,
    }

    type Shared = Arc<Mutex<Printed>>;

    fn start(role: &str, schema: &str, number: u64, printed: &Shared) -> Process {
        let role = format!("server_restarts::{role}");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([&*role, "--exact", "--ignored", "--nocapture"])
            .env(SCHEMA, schema)
            .env(NUMBER, number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let printed = Arc::clone(printed);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let mut words = line.splitn(3, ' ');
                let word = words.next();
                let position = words.next().and_then(|position| position.parse().ok());
                let (Some(word), Some(position), Some(rest)) = (word, position, words.next())
                else {
                    continue;
                };
                let mut printed = printed.lock().unwrap();
                match word {
                    "acknowledged" => printed.acknowledged.push((position, rest.to_owned())),
                    "given" => printed.given.push((position, rest.to_owned())),
                    _ => {}
                }
            }
        });
        Process(child)
    }

    async fn more(printed: &Shared, count: usize) {
        let acknowledged = || printed.lock().unwrap().acknowledged.len();
        let wanted = acknowledged() + count;
        let mut look = tokio::time::interval(Duration::from_millis(5));
        let waiting = async {
            while acknowledged() < wanted {
                look.tick().await;
            }
        };
        tokio::time::timeout(FOR_EVER, waiting)
            .await
            .expect("the processes did not recover");
    }

    async fn whole_log(schema: &Schema) -> HashMap<u64, String> {
        let store = schema.store().await;
        let mut log = HashMap::new();
        let mut read = ReadLog::after(Position::START);
        loop {
            let page = store.read(read.clone()).await.unwrap();
            for event in &page.events {
                let line = line_of(event);
                let (_, rest) = line.trim().split_once(' ').unwrap();
                let (position, rest) = rest.split_once(' ').unwrap();
                assert_eq!(position.parse(), Ok(log.len() as u64 + 1), "a gap");
                log.insert(event.position.get(), rest.to_owned());
            }
            read.after = page.scanned;
            if page.end {
                return log;
            }
        }
    }

    fn gone<'a>(lines: &'a [Line], log: &HashMap<u64, String>) -> Vec<&'a Line> {
        let is_gone = |line: &&Line| log.get(&line.0) != Some(&line.1);
        lines.iter().filter(is_gone).collect()
    }

    /// Kills the server so many times; how many events that readers were given were gone
    /// afterwards.
    async fn cut(reader: &str, rounds: u64) -> usize {
        let _alone = crate::outage::SERVER.lock().await;
        let schema = Schema::new();
        drop(schema.store().await);
        let printed = Shared::default();
        let mut processes = Vec::new();
        for number in 0..WRITERS {
            processes.push(start("writes", &schema.name, number, &printed));
        }
        for number in 0..READERS {
            processes.push(start(reader, &schema.name, number, &printed));
        }
        let mut lost = HashSet::new();
        for round in 0..rounds {
            more(&printed, APPENDS).await;
            match round % 2 {
                0 => control("kill").await,
                _ => kill_all().await,
            }
            control("start").await;
            more(&printed, APPENDS).await;
            let (acknowledged, given) = {
                let printed = printed.lock().unwrap();
                (printed.acknowledged.clone(), printed.given.clone())
            };
            let log = whole_log(&schema).await;
            let missing = gone(&acknowledged, &log);
            assert!(missing.is_empty(), "acknowledged and gone: {missing:?}");
            lost.extend(gone(&given, &log).into_iter().cloned());
        }
        for process in &mut processes {
            assert_eq!(
                process.0.try_wait().unwrap(),
                None,
                "a process ended by itself"
            );
        }
        drop(processes);
        let printed = printed.lock().unwrap();
        println!(
            "{reader}: {rounds} crashes under {WRITERS} writers and {READERS} readers, {} appends \
             acknowledged, 0 gone; {} events given, {} gone",
            printed.acknowledged.len(),
            printed.given.len(),
            lost.len()
        );
        lost.len()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_reader_was_given_survives_crashes() {
        assert_eq!(cut("reads", rounds()).await, 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_control_which_reads_what_is_visible_loses_events() {
        // Whether a crash comes before the flush of what was read is up to the machine.
        let mut lost = 0;
        for _ in 0..10 {
            lost = cut("reads_what_is_visible", 4).await;
            if lost > 0 {
                break;
            }
        }
        assert!(lost > 0, "the test would not notice an event that is gone");
    }
}
