//! Nothing that is found by an index scans the log: every statement against the tables of events
//! says how it is planned.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals_core::{
    Append, Condition, Direction, EventStore, Filter, Log, LogPage, NewEvent, Position, Query,
    QueryItem, ReadLog, ReadQuery, RecordedEvent, StreamId, Tag, TaggedStore,
};
use annals_sqlite::{Options, SqliteStore, rusqlite};
use tempfile::TempDir;

/// A log of 20,000 events in which little is rare.
async fn log() -> (TempDir, SqliteStore) {
    let directory = TempDir::new().unwrap();
    let store = SqliteStore::open_with(Options::file(directory.path().join("log.db")))
        .await
        .unwrap();
    let mut dice = 1_u64;
    for _ in 0..20 {
        let mut append = Append::default();
        for _ in 0..1_000 {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = dice >> 33;
            let category = ["account", "cart", "rare"][if number.is_multiple_of(997) {
                2
            } else {
                (number % 2) as usize
            }];
            let stream = StreamId::new(format!("{category}-{}", number % 50)).unwrap();
            let name = if number.is_multiple_of(499) {
                "seldom"
            } else {
                ["opened", "closed", "moved"][(number % 3) as usize]
            };
            let mut event = NewEvent::json(name, b"{}".as_slice());
            if number.is_multiple_of(7) {
                event = event.tag(Tag::new("seven", number % 14).unwrap());
            }
            if number.is_multiple_of(11) {
                event = event.tag(Tag::new("eleven", number % 22).unwrap());
            }
            append = append.event(stream, event);
        }
        store
            .append(append.under(Condition::none_matches(Query::types(["never"]))))
            .await
            .unwrap();
    }
    (directory, store)
}

fn plan(connection: &rusqlite::Connection, statement: &str) -> Vec<String> {
    let mut explain = connection
        .prepare(&format!("explain query plan {statement}"))
        .unwrap();
    let count = explain.parameter_count();
    explain
        .query_map(rusqlite::params_from_iter((0..count).map(|_| 1)), |row| {
            row.get(3)
        })
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

#[tokio::test]
async fn no_statement_scans_or_sorts_a_large_table() {
    let (directory, store) = log().await;
    drop(store);
    let connection = rusqlite::Connection::open(directory.path().join("log.db")).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/sql")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(statement) = std::fs::read_to_string(&path) else {
            continue;
        };
        assert!(
            statement.starts_with("-- "),
            "{} does not say what it guarantees",
            path.display()
        );
        for step in plan(&connection, &statement) {
            let on_large = [
                "annals_events",
                "events",
                "annals_event_tags",
                "annals_streams",
                "streams",
                "annals_view_rows",
                "rows",
                "annals_view_entries",
                "entries",
                "annals_view_versions",
                "annals_view_touched",
                "annals_view_dead_letters",
                "annals_view_stream_versions",
                "stream_versions",
                "annals_leases",
            ];
            // The newest row is the first step of a scan along the key.
            let one_row = path.ends_with("head.sql");
            let scans = on_large.iter().any(|table| step == format!("SCAN {table}"));
            assert!(one_row || !scans, "{}: {step}", path.display());
            assert!(!step.contains("TEMP B-TREE"), "{}: {step}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
    for (statement, index) in [
        (
            "kind_forward",
            "COVERING INDEX annals_events_by_kind (kind=? AND rowid>? AND rowid<?)",
        ),
        (
            "kind_backward",
            "COVERING INDEX annals_events_by_kind (kind=? AND rowid>? AND rowid<?)",
        ),
        (
            "tag_forward",
            "PRIMARY KEY (tag=? AND position>? AND position<?)",
        ),
        (
            "tag_backward",
            "PRIMARY KEY (tag=? AND position>? AND position<?)",
        ),
        (
            "version_forward",
            "COVERING INDEX annals_events_by_stream (stream=? AND version>? AND version<?)",
        ),
        (
            "stream_backward",
            "INDEX annals_events_by_stream (stream=? AND version>? AND version<?)",
        ),
        ("known_id", "INDEX annals_events_by_id (id=?)"),
        ("event", "INTEGER PRIMARY KEY (rowid=?)"),
        ("view_row", "PRIMARY KEY (generation=? AND key=?)"),
        ("row_stream_version", "PRIMARY KEY (generation=? AND key=?)"),
        ("versioned_row", "PRIMARY KEY (generation=? AND key=?)"),
        (
            "rows_forward",
            "PRIMARY KEY (generation=? AND key>? AND key<?)",
        ),
        (
            "rows_backward",
            "PRIMARY KEY (generation=? AND key>? AND key<?)",
        ),
        (
            "indexed_forward",
            "PRIMARY KEY (generation=? AND index=? AND (entry,key)>(?,?) AND (entry,key)<(?,?))",
        ),
        ("indexed_forward", "PRIMARY KEY (generation=? AND key=?)"),
        (
            "indexed_backward",
            "PRIMARY KEY (generation=? AND index=? AND (entry,key)>(?,?) AND (entry,key)<(?,?))",
        ),
        (
            "newest_version_of_row",
            "INDEX annals_view_versions_by_key (generation=? AND key=? AND up_to<?)",
        ),
        (
            "next_version_of_row",
            "INDEX annals_view_versions_by_key (generation=? AND key=? AND up_to>?)",
        ),
        (
            "versions_of_row",
            "INDEX annals_view_versions_by_key (generation=? AND key=? AND up_to>? AND up_to<?)",
        ),
        (
            "next_key_with_history",
            "COVERING INDEX annals_view_versions_by_key (generation=? AND key>? AND key<?)",
        ),
        (
            "versions_ending",
            "PRIMARY KEY (generation=? AND up_to>? AND up_to<?)",
        ),
        (
            "versions_to_purge",
            "PRIMARY KEY (generation=? AND (up_to,key)>(?,?) AND up_to<?)",
        ),
        (
            "touched",
            "PRIMARY KEY (generation=? AND key=? AND position>? AND position<?)",
        ),
        (
            "dead_letters",
            "PRIMARY KEY (generation=? AND (key,partition,position)>(?,?,?))",
        ),
        ("purge_rows", "PRIMARY KEY (generation=? AND key<?)"),
        (
            "purge_stream_versions",
            "PRIMARY KEY (generation=? AND key<?)",
        ),
        (
            "purge_entries",
            "PRIMARY KEY (generation=? AND (index,entry,key)<(?,?,?))",
        ),
        (
            "purge_versions",
            "PRIMARY KEY (generation=? AND (up_to,key)<(?,?))",
        ),
    ] {
        let file = format!("{}/src/sql/{statement}.sql", env!("CARGO_MANIFEST_DIR"));
        let steps = plan(&connection, &std::fs::read_to_string(file).unwrap());
        assert!(
            steps.iter().any(|step| step.contains(index)),
            "{statement}: {steps:?}"
        );
    }
}

async fn whole(
    store: &SqliteStore,
    filter: &Filter,
    direction: Direction,
    limit: usize,
) -> (Vec<RecordedEvent>, usize) {
    let mut read = ReadLog::after(Position::START)
        .filter(filter.clone())
        .limit(limit);
    read.direction = direction;
    let mut all = Vec::new();
    let mut pages = 0;
    loop {
        let page: LogPage = store.read(read.clone()).await.unwrap();
        pages += 1;
        all.extend(page.events);
        if page.end {
            return (all, pages);
        }
        match direction {
            Direction::Forward => read.after = page.scanned,
            Direction::Backward => read.up_to = page.scanned.minus(1),
        }
    }
}

/// Every way of finding events finds those that match, and no other.
#[tokio::test]
async fn every_filter_finds_what_looking_at_everything_finds() {
    let (_directory, store) = log().await;
    let (everything, _) = whole(&store, &Filter::default(), Direction::Forward, 1_000).await;
    assert_eq!(everything.len(), 20_000);
    let tag = |text: &str| text.parse::<Tag>().unwrap();
    let middle = everything[10_000].recorded_at;
    let filters = [
        Filter::default().types(["seldom"]),
        Filter::default().types(["opened", "closed"]),
        Filter::default().types(["opened", "seldom", "never"]),
        Filter::default().types(["never"]),
        Filter::default().category("rare"),
        Filter::default().category("rare").category("account"),
        Filter::default().category("unknown"),
        Filter::default()
            .category("cart")
            .types(["seldom", "moved"]),
        Filter::default().tag(tag("seven:0")),
        Filter::default().tag(tag("seven:0")).tag(tag("eleven:11")),
        Filter::default().tag(tag("seven:3")),
        Filter::default()
            .tag(tag("seven:7"))
            .types(["seldom"])
            .category("account"),
        Filter::default().stream_prefix("account-1"),
        Filter::default()
            .stream_prefix("rare-")
            .stream_prefix("cart-49"),
        Filter::default().stream_prefix("a").types(["seldom"]),
        Filter::default().recorded(middle..),
        Filter::default().recorded(..middle).types(["seldom"]),
        Filter::default().occurred(middle..),
    ];
    for filter in filters {
        let mut expected: Vec<_> = everything
            .iter()
            .filter(|event| filter.matches(event))
            .map(|event| event.position)
            .collect();
        for direction in [Direction::Forward, Direction::Backward] {
            for limit in [7, 1_000] {
                let (found, _) = whole(&store, &filter, direction, limit).await;
                let found: Vec<_> = found.iter().map(|event| event.position).collect();
                assert_eq!(found, expected, "{filter:?} {direction:?} {limit}");
            }
            expected.reverse();
        }
    }
}

#[tokio::test]
async fn a_page_of_a_sparse_filter_reaches_the_end() {
    let (_directory, store) = log().await;
    for filter in [
        Filter::default().types(["seldom"]),
        Filter::default().category("rare"),
    ] {
        let (found, pages) = whole(&store, &filter, Direction::Forward, 1_000).await;
        assert!(!found.is_empty());
        assert_eq!(pages, 1, "{filter:?}");
    }
}

/// A page that finds nothing still ends, and says how far it looked.
#[tokio::test]
async fn a_page_looks_at_a_bounded_part_of_the_log() {
    let (_directory, store) = log().await;
    let never = Filter::default()
        .occurred(..annals_core::chrono::DateTime::from_timestamp_micros(1).unwrap());
    let page = store
        .read(
            ReadLog::after(Position::START)
                .filter(never.clone())
                .limit(10),
        )
        .await
        .unwrap();
    assert!(page.events.is_empty() && !page.end);
    assert!(
        (1_000..20_000).contains(&page.scanned.get()),
        "{}",
        page.scanned
    );
    let (found, pages) = whole(&store, &never, Direction::Forward, 10).await;
    assert!(found.is_empty() && pages > 1);
}

#[tokio::test]
async fn every_query_finds_what_looking_at_everything_finds() {
    let (_directory, store) = log().await;
    let (everything, _) = whole(&store, &Filter::default(), Direction::Forward, 1_000).await;
    let tag = |text: &str| text.parse::<Tag>().unwrap();
    let stream = |name: &str| StreamId::new(name).unwrap();
    for query in [
        Query::all(),
        Query::types(["seldom"]),
        Query::tagged([tag("seven:0"), tag("eleven:0")]),
        Query::tagged([tag("seven:7")]).or(QueryItem::types(["seldom"]).tag(tag("eleven:11"))),
        Query::stream(stream("account-4")).or(Query::stream(stream("rare-13"))),
        Query::from(
            QueryItem::types(["opened"])
                .stream(stream("cart-7"))
                .stream(stream("unknown-1")),
        ),
        Query::stream(stream("unknown-1")),
    ] {
        let expected: Vec<_> = everything
            .iter()
            .filter(|event| query.matches(event))
            .map(|event| event.position)
            .collect();
        let page = store
            .read_query(ReadQuery::of(query.clone()).limit(20_000))
            .await
            .unwrap();
        let mut found: Vec<_> = page.events.iter().map(|event| event.position).collect();
        let mut after = page.scanned;
        let mut end = page.end;
        while !end {
            let page = store
                .read_query(ReadQuery::of(query.clone()).after(after).limit(20_000))
                .await
                .unwrap();
            found.extend(page.events.iter().map(|event| event.position));
            after = page.scanned;
            end = page.end;
        }
        assert_eq!(found, expected, "{query:?}");
        // The first violation of a condition is the first match, wherever the search starts
        // from.
        for after in [0, 5_000, 19_990] {
            let first = expected.iter().find(|position| position.get() > after);
            let condition = Condition::none_matches(query.clone()).after(Position::new(after));
            let append = Append::default().event(
                stream("probe-1"),
                NewEvent::json("probed", b"{}".as_slice()),
            );
            let refused = match store.append(append.under(condition)).await {
                Err(annals_core::AppendError::Conflict(found)) => Some(format!("{found:?}")),
                Ok(_) => None,
                Err(error) => panic!("{error:?}"),
            };
            let expected =
                first.map(|position| format!("[Condition {{ position: {position:?} }}]"));
            if query == Query::all() && expected.is_none() {
                continue;
            }
            assert_eq!(refused, expected, "{query:?} after {after}");
        }
    }
}

/// Streams without a real category do not make the dictionary of kinds grow for ever, and are still
/// found by it.
#[tokio::test]
async fn thousands_of_categories_are_told_apart() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let name = |n: u64| StreamId::new(format!("{n:08x}-b3c1-4711")).unwrap();
    for n in 0..600 {
        store
            .append(Append::new(
                name(n),
                [NewEvent::json("noted", b"{}".as_slice())],
            ))
            .await
            .unwrap();
    }
    for n in [0, 255, 256, 599] {
        let filter = Filter::default().category(name(n).category());
        let (found, _) = whole(&store, &filter, Direction::Forward, 1_000).await;
        assert_eq!(
            found.iter().map(|event| &event.stream).collect::<Vec<_>>(),
            [&name(n)]
        );
    }
    let kinds = store.append_in(|transaction| {
        let count =
            transaction
                .connection()
                .query_row("select count(*) from annals_kinds", [], |row| {
                    row.get::<_, i64>(0)
                });
        count.map_err(|error| {
            annals_core::AppendError::from(annals_core::Invalid::new(error.to_string()))
        })
    });
    assert!(kinds.await.unwrap() < 300);
}
