//! Appends that overlap, made to do so one step at a time: what commits last, rolls back, stops
//! still, or is cut off.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;

use std::time::Duration;

use annals_core::{
    Append, AppendError, Condition, EventId, EventStore, Expected, Failure, Log, NewEvent,
    Partition, Position, Query, ReadLog, RecordedEvent, StreamId, Version,
};
use annals_postgres::{PostgresStore, sqlx};
use server::{Schema, connection};
use sqlx::PgConnection;
use tokio::sync::watch;

fn event(n: usize) -> NewEvent {
    NewEvent::json("thing.happened", format!("{n}").into_bytes())
}

async fn append(store: &PostgresStore, stream: &str, n: usize) -> u64 {
    let append = Append::new(StreamId::new(stream).unwrap(), [event(n)]);
    store.append(append).await.unwrap().last().position.get()
}

async fn log(store: &PostgresStore) -> Vec<RecordedEvent> {
    let mut all = Vec::new();
    let mut read = ReadLog::after(Position::START);
    loop {
        let page = store.read(read.clone()).await.unwrap();
        all.extend(page.events);
        if page.end {
            return all;
        }
        read.after = page.scanned;
    }
}

async fn positions(store: &PostgresStore) -> Vec<u64> {
    log(store)
        .await
        .iter()
        .map(|event| event.position.get())
        .collect()
}

async fn head(store: &PostgresStore) -> u64 {
    store.head(Partition(0)).await.unwrap().visible.get()
}

/// Another writer, one statement at a time: it appends an event to `other-1` in a transaction that
/// stays open.
async fn open_append(schema: &Schema) -> PgConnection {
    let mut other = connection().await;
    for statement in [
        "select annals.resolve_streams(array['other-1'], true)",
        "select annals.resolve_kind('thing.happened', 1, 'json', 'other')",
        "begin",
        "select annals.append(
            incarnation, head, head_event, changes, row(
                array[0], array[key], array[version + 1], array[(select max(key) from annals.kind)],
                array[0], array[1], array[0::bigint], array[0::bigint], array[gen_random_uuid()],
                array[gen_random_uuid()], array[null::text], array[null::bytea],
                array['{}'::bytea], array[]::bigint[], array[]::integer[], array[]::bigint[],
                array[]::integer[], array[]::bigint[], array[]::bigint[], null, null
            )::annals.append_batch
        )
        from annals.log_head(), annals.resolve_streams(array['other-1'], false)",
    ] {
        sqlx::raw_sql(schema.sql(statement))
            .execute(&mut other)
            .await
            .unwrap();
    }
    other
}

async fn run(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

/// Waits until so many wait for their turn to give positions.
async fn waiting_for_their_turn(schema: &Schema, count: i64) {
    let mut observer = connection().await;
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted and \
        classid in (1095650892, 1095650895)
        and objid = 'annals.event'::regclass::oid";
    let reached = async {
        while sqlx::query_scalar::<_, i64>(schema.sql(waiting))
            .fetch_one(&mut observer)
            .await
            .unwrap()
            < count
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached)
        .await
        .expect("an append waits for another");
}

#[tokio::test]
async fn what_began_first_and_commits_last_is_not_passed_by() {
    let schema = Schema::new();
    let store = schema.store().await;
    assert_eq!(append(&store, "mine-1", 0).await, 1);
    let mut other = open_append(&schema).await;
    let appending = {
        let store = store.clone();
        tokio::spawn(async move { append(&store, "mine-1", 1).await })
    };
    waiting_for_their_turn(&schema, 1).await;
    assert_eq!(
        (positions(&store).await, head(&store).await),
        (vec![1], 1),
        "a reader waits for no writer and sees no further"
    );
    run(&mut other, "commit").await;
    assert_eq!(appending.await.unwrap(), 3);
    assert_eq!(positions(&store).await, [1, 2, 3]);
    let streams: Vec<_> = log(&store)
        .await
        .into_iter()
        .map(|event| event.stream.to_string())
        .collect();
    assert_eq!(streams, ["mine-1", "other-1", "mine-1"]);
}

#[tokio::test]
async fn what_is_rolled_back_leaves_no_gap_and_no_delay() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut other = open_append(&schema).await;
    let appending = {
        let store = store.clone();
        tokio::spawn(async move { append(&store, "mine-1", 1).await })
    };
    waiting_for_their_turn(&schema, 1).await;
    run(&mut other, "rollback").await;
    assert_eq!(appending.await.unwrap(), 1);
    assert_eq!(positions(&store).await, [1]);
}

#[tokio::test]
async fn cancelled_waits_for_the_log_leave_nothing_locked() {
    let schema = Schema::new();
    let store = schema.store().await;
    assert_eq!(append(&store, "mine-1", 0).await, 1);
    let mut other = open_append(&schema).await;
    let mut waiting = Vec::new();
    for count in 1..=4 {
        let mut session = connection().await;
        let lock = schema.sql("select annals.lock_log()");
        waiting.push(tokio::spawn(async move {
            let ended = sqlx::raw_sql(lock).execute(&mut session).await;
            (session, ended)
        }));
        waiting_for_their_turn(&schema, count).await;
    }
    // The one that is next, and those that wait for its place.
    let cancel = schema.sql(
        "select count(pg_cancel_backend(pid)) from pg_locks where locktype = 'advisory' and
            not granted and classid in (1095650892, 1095650895)
            and objid = 'annals.event'::regclass::oid",
    );
    let mut observer = connection().await;
    let cancelled: i64 = sqlx::query_scalar(cancel)
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(cancelled, 4);
    let mut sessions = Vec::new();
    for waiting in waiting {
        let (session, ended) = waiting.await.unwrap();
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("canceling statement"), "{error}");
        sessions.push(session);
    }
    run(&mut other, "rollback").await;
    assert_eq!(append(&store, "mine-1", 1).await, 2);
    let left = schema.sql(
        "select count(*) from pg_locks where locktype = 'advisory' and granted and
            classid in (1095650892, 1095650895) and objid = 'annals.event'::regclass::oid",
    );
    let left: i64 = sqlx::query_scalar(left)
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(
        left,
        0,
        "with {} sessions that are still there",
        sessions.len()
    );
}

#[tokio::test]
async fn a_commit_between_two_reads_is_whole_in_the_second() {
    let schema = Schema::new();
    let store = schema.store().await;
    for round in 1..20_u64 {
        let mut other = open_append(&schema).await;
        let before = store.read(ReadLog::after(Position::START)).await.unwrap();
        let (reading, committed) = tokio::join!(
            async { store.read(ReadLog::after(before.scanned)).await.unwrap() },
            run(&mut other, "commit")
        );
        let () = committed;
        // Whenever it committed: the head of the page and its events are of one moment.
        assert_eq!(
            reading.events.len() as u64,
            reading.head.visible.get() - before.scanned.get()
        );
        let rest = store.read(ReadLog::after(reading.scanned)).await.unwrap();
        assert_eq!(
            before.events.len() + reading.events.len() + rest.events.len(),
            round as usize
        );
    }
}

#[tokio::test]
async fn an_unrelated_transaction_with_a_snapshot_delays_no_reader() {
    let schema = Schema::new();
    let store = schema.store().await;
    append(&store, "mine-1", 0).await;
    let mut unrelated = connection().await;
    // It has a snapshot and a transaction id, and is older than everything that follows.
    run(&mut unrelated, "begin isolation level repeatable read").await;
    sqlx::raw_sql(
        schema.sql("create table annals.unrelated (n integer); select count(*) from annals.event"),
    )
    .execute(&mut unrelated)
    .await
    .unwrap();
    for n in 1..50 {
        assert_eq!(append(&store, "mine-1", n).await, n as u64 + 1);
        assert_eq!(
            head(&store).await,
            n as u64 + 1,
            "what is acknowledged is seen at once"
        );
    }
    assert_eq!(positions(&store).await, (1..=50).collect::<Vec<_>>());
    run(&mut unrelated, "rollback").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_processes_share_one_dense_order() {
    let schema = Schema::new();
    let stores = [
        schema.store().await,
        schema.store().await,
        schema.store().await,
    ];
    let tail = {
        let store = schema.store().await;
        tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut hint = store.hint();
            let mut read = ReadLog::after(Position::START).limit(7);
            while seen.len() < 3 * 8 * 25 {
                let page = store.read(read.clone()).await.unwrap();
                read.after = page.scanned;
                if page.events.is_empty() {
                    hint.wait(Duration::from_millis(50)).await;
                }
                seen.extend(
                    page.events
                        .into_iter()
                        .map(|event| (event.position.get(), event.id, event.recorded_at)),
                );
            }
            seen
        })
    };
    let mut writers = Vec::new();
    for (process, store) in stores.iter().enumerate() {
        for task in 0..8 {
            let store = store.clone();
            writers.push(tokio::spawn(async move {
                for n in 0..25 {
                    // Every other one goes to a stream that all processes write to.
                    let stream = if n % 2 == 0 {
                        "shared-1".into()
                    } else {
                        format!("own-{process}-{task}")
                    };
                    append(&store, &stream, n).await;
                }
            }));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let seen = tail.await.unwrap();
    assert_eq!(
        seen.iter()
            .map(|(position, ..)| *position)
            .collect::<Vec<_>>(),
        (1..=600).collect::<Vec<_>>()
    );
    assert!(seen.is_sorted_by_key(|(.., recorded_at)| *recorded_at));
    let mut ids: Vec<EventId> = seen.into_iter().map(|(_, id, _)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 600);
}

/// Appends one event, expecting what is said of the stream.
async fn expecting(
    store: &PostgresStore,
    stream: &str,
    expected: Expected,
) -> Result<(u64, u64), AppendError> {
    let append = Append::new(StreamId::new(stream).unwrap(), [event(0)]).expecting(expected);
    let appended = store.append(append).await?;
    let last = appended.last();
    Ok((last.position.get(), last.version.get()))
}

/// Single events, each after one of another process that is not looked at, then what needs to know
/// all that happened between them.
#[tokio::test]
async fn what_others_appended_between_is_seen_by_what_needs_it() {
    let schema = Schema::new();
    let (a, b) = (schema.store().await, schema.store().await);
    let mut head = 0;
    for n in 0..300 {
        let known = match n {
            0 => Expected::NoStream,
            n => Expected::ActiveAt(Version::new(n)),
        };
        for (store, stream, expected) in [
            (&a, "a-1", known),
            (&b, "b-1", known),
            (&a, "both-1", Expected::Any),
            (&b, "both-1", Expected::Any),
        ] {
            let (position, version) = expecting(store, stream, expected).await.unwrap();
            assert_eq!(position, head + 1);
            head = position;
            // The fourth of each round is the second to the stream of both.
            let both = 2 * n + 1 + u64::from(head % 4 == 0);
            assert_eq!(version, if stream == "both-1" { both } else { n + 1 });
        }
    }
    // What was true before those in between is a conflict with any of them.
    for (store, stream) in [(&a, "b-1"), (&b, "a-1")] {
        let stale = expecting(store, stream, Expected::NoStream).await;
        assert!(matches!(stale, Err(AppendError::Conflict(_))), "{stale:?}");
    }
    let read_at = Position::new(head - 4);
    let of_b = Query::stream(StreamId::new("b-1").unwrap());
    let append = Append::new(StreamId::new("a-1").unwrap(), [event(0)])
        .under(Condition::none_matches(of_b).after(read_at));
    let stale = a.append(append).await;
    assert!(matches!(stale, Err(AppendError::Conflict(_))), "{stale:?}");
    // Several events at once come after all of it.
    let streams = ["both-1", "b-1", "a-1"].map(|stream| StreamId::new(stream).unwrap());
    let [both, other, own] = streams;
    let append = Append::default()
        .event(both, event(1))
        .event(other, event(2))
        .event(own, event(3));
    let appended = a.append(append).await.unwrap();
    let versions: Vec<u64> = appended
        .events()
        .iter()
        .map(|placed| placed.version.get())
        .collect();
    assert_eq!(versions, [601, 301, 301]);
    assert_eq!(appended.last().position.get(), head + 3);
    // And alone again, the writer is where it should be.
    for n in 0..40 {
        let alone = expecting(&a, "a-1", Expected::ActiveAt(Version::new(301 + n))).await;
        assert_eq!(alone.unwrap(), (head + 4 + n, 302 + n));
    }
    assert_eq!(positions(&b).await, (1..=head + 43).collect::<Vec<_>>());
}

/// Appends until it is acknowledged, asking again with the same id when it must.
async fn insist(store: &PostgresStore, stream: &str, event: &NewEvent) -> EventId {
    loop {
        let append = Append::new(StreamId::new(stream).unwrap(), [event.clone()]);
        match store.append(append).await {
            Ok(appended) => return appended.last().id,
            Err(AppendError::Unknown(_)) => {}
            Err(AppendError::Store(error)) if error.failure() == Failure::Unavailable => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_are_cut_off_lose_nothing_and_repeat_nothing() {
    let schema = Schema::new();
    let (options, name) = schema.named(4);
    let store = PostgresStore::connect_with(options).await.unwrap();
    let count = watch::Sender::new(0);
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let store = store.clone();
            let count = count.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0..40 {
                    acknowledged.push(insist(&store, &format!("cut-{writer}"), &event(n)).await);
                    count.send_modify(|count| *count += 1);
                }
                acknowledged
            })
        })
        .collect();
    let mut axe = connection().await;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1";
    let mut counted = count.subscribe();
    for acknowledged in (0..16 * 40).step_by(8) {
        counted
            .wait_for(|count| *count >= acknowledged)
            .await
            .unwrap();
        sqlx::query(cut)
            .bind(&name)
            .execute(&mut axe)
            .await
            .unwrap();
    }
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let mut stored: Vec<EventId> = log(&schema.store().await)
        .await
        .iter()
        .map(|event| event.id)
        .collect();
    acknowledged.sort();
    stored.sort();
    assert_eq!(acknowledged, stored);
}

/// How often the server looked through all of a table, once it has counted so many new rows of the
/// log.
async fn scans(schema: &Schema, rows: i64) -> i64 {
    let mut observer = connection().await;
    let counted = "select
            (select n_tup_ins from pg_stat_user_tables where relid = 'annals.event'::regclass),
            (select sum(seq_scan)::bigint from pg_stat_user_tables
            where relid in ('annals.event'::regclass, 'annals.stream'::regclass))";
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    loop {
        let (inserted, scans): (i64, i64) = sqlx::query_as(schema.sql(counted))
            .fetch_one(&mut observer)
            .await
            .unwrap();
        if inserted >= rows {
            return scans;
        }
        poll.tick().await;
    }
}

#[tokio::test]
async fn writers_that_saw_an_empty_log_never_scan_it() {
    let schema = Schema::new();
    // The server counts what a connection did at the latest when it ends.
    append(&schema.store().await, "begun-1", 0).await;
    let before = scans(&schema, 1).await;
    let a = schema.store().await;
    let b = schema.store().await;
    // More often than the server plans a statement again before it keeps a plan.
    for n in 0..40 {
        for (store, name) in [(&a, "a-1"), (&b, "b-1"), (&a, "both-1"), (&b, "both-1")] {
            append(store, name, n).await;
        }
        append(&b, &format!("new-{n}"), n).await;
    }
    drop((a, b));
    assert_eq!(scans(&schema, 201).await, before);
}

#[tokio::test]
async fn names_made_now_and_known_ones_are_resolved_together() {
    let schema = Schema::new();
    append(&schema.store().await, "b-1", 0).await;
    let mut other = connection().await;
    let resolve = "select name, key, version
        from annals.resolve_streams(array['c-1', 'b-1', 'a-1'], true)
        order by name";
    let mut resolved: Vec<Vec<(String, i64, i64)>> = Vec::new();
    for _ in 0..2 {
        let found = sqlx::query_as::<_, (String, i64, i64)>(schema.sql(resolve));
        resolved.push(found.fetch_all(&mut other).await.unwrap());
    }
    assert_eq!(resolved[0], resolved[1]);
    let versions = resolved[0].iter().map(|(name, _, of)| (&**name, *of));
    let versions: Vec<(&str, i64)> = versions.collect();
    assert_eq!(versions, [("a-1", 0), ("b-1", 1), ("c-1", 0)]);
}
