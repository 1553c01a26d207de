//! What an append may hold.

use std::collections::BTreeMap;

use crate::append::{Append, Expected, Limits};
use crate::conformance::Fixture;
use crate::conformance::words::*;
use crate::event::{Metadata, NewEvent};
use crate::generation::GenerationId;
use crate::inline::InlineRow;
use crate::read::ReadStream;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::Status;

pub async fn without_events_is_invalid(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let absent = stream("empty-1");
    let active = stream("empty-2");
    append(&*store, &active, events(1)).await;
    for to in [&absent, &active] {
        for expected in [
            Expected::Any,
            Expected::NoStream,
            Expected::Exists,
            version(0),
        ] {
            let error = refused(&*store, &[to], try_append(&*store, to, expected, [])).await;
            assert_invalid(&error, "without events");
        }
    }
    assert_eq!(
        store.stream_state(&absent).await.unwrap().status,
        Status::Absent
    );
}

/// The append is refused, with a text that names what is wrong, and writes nothing.
async fn assert_refuses(store: &dyn Store, to: &StreamId, given: Vec<NewEvent>, names: &str) {
    let append = try_append(store, to, Expected::Any, given);
    assert_invalid(&refused(store, &[to], append).await, names);
}

pub async fn naming_one_id_twice_is_invalid(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("twice-1");
    let first = event("1");
    let same = event("2").id(first.id);
    let id = first.id.to_string();
    for given in [
        vec![first.clone(), same.clone()],
        vec![first.clone(), event("3"), first.clone()],
    ] {
        assert_refuses(&*store, &to, given, &id).await;
    }
}

pub async fn beyond_a_limit_is_invalid_and_names_the_limit(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("limits-1");
    append(&*store, &to, events(1)).await;
    let limits = store.limits();
    let long = "n".repeat(Limits::NAME_BYTES_MAX + 1);
    let large = NewEvent::json(
        "large",
        vec![b'x'; (20 << 20).max(limits.payload_bytes_max + 1)],
    );
    let full = vec![b'x'; limits.payload_bytes_max];
    let whole = (0..limits.append_bytes_max / limits.payload_bytes_max + 1)
        .map(|_| bytes::Bytes::from(full.clone()));
    let tags =
        (0..=Limits::TAGS_MAX).fold(event("1"), |event, n| event.tag(tag(&format!("n:{n}"))));
    let metadata = Metadata::default().key("k", "v".repeat(Limits::METADATA_BYTES_MAX));
    let rows = [
        (vec![event("1"), large], "event 1"),
        (
            whole
                .map(|payload| NewEvent::json("full", payload))
                .collect(),
            "bytes",
        ),
        (events(limits.append_events_max + 1), "events"),
        (
            vec![event("1"), NewEvent::json(long.clone(), "1")],
            "event 1",
        ),
        (vec![NewEvent::json("", "1")], "event 0"),
        (vec![NewEvent::json("line\nbreak", "1")], "event 0"),
        (vec![NewEvent::new("named", long, "1")], "event 0"),
        (vec![NewEvent::new("named", "", "1")], "event 0"),
        (vec![event("1"), event("2"), tags], "event 2"),
        (vec![event("1").metadata(metadata)], "event 0"),
    ];
    for (given, names) in rows {
        assert_refuses(&*store, &to, given, names).await;
    }
}

pub async fn up_to_its_limits_is_accepted(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("limits-2");
    let limits = store.limits();
    let name = "n".repeat(Limits::NAME_BYTES_MAX);
    let tags =
        (0..Limits::TAGS_MAX).fold(event("1"), |event, n| event.tag(tag(&format!("n:{n:03}"))));
    let longest_tag = event("1").tag(tag(&format!("k:{}", "v".repeat(253))));
    let metadata = Metadata::default().key("k", "v".repeat(Limits::METADATA_BYTES_MAX - 1));
    let rows = [
        vec![NewEvent::json(
            "large",
            vec![b'x'; limits.payload_bytes_max],
        )],
        events(limits.append_events_max),
        vec![NewEvent::new(name.clone(), name, "1"), tags, longest_tag],
        vec![event("1").metadata(metadata)],
    ];
    let mut next = Version::FIRST;
    for given in rows {
        let appended = append(&*store, &to, given.clone()).await;
        assert_recorded(
            &appended,
            &given,
            &read_stream(&*store, ReadStream::of(to.clone()).from(next)).await,
        );
        next = next.plus(given.len() as u64);
    }
}

pub async fn accepts_every_legal_name(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let longest = "l".repeat(StreamId::BYTES_MAX);
    let long_letters = "ä".repeat(StreamId::BYTES_MAX / 2);
    let names = [
        "journal",
        "account-1",
        "account-2026-03-31",
        "Account-1",
        "account-1 ",
        "-starts-with-a-dash",
        "ends-",
        "konto-Ärö-1",
        "konto-A\u{308}ro\u{308}-1",
        "списък-№-七",
        "🦀-🦀🦀",
        "q'uote-\"x\"\\y",
        "percent-%_*?",
        "dollar-$x",
        "slash/..-/a:b;c",
        &longest,
        &long_letters,
    ];
    let mut appended = BTreeMap::new();
    for name in names {
        let to = stream(name);
        appended.insert(
            name,
            try_append(&*store, &to, Expected::NoStream, events(1))
                .await
                .unwrap(),
        );
    }
    let store = reopen(fixture, store).await;
    for name in names {
        let found = whole_stream(&*store, &stream(name)).await;
        assert_eq!(ids(&found), [appended[name].last().id], "{name}");
        assert_eq!(found[0].stream.as_str(), name);
    }
    // Annals' own streams are the same to a store.
    let own = StreamId::any("$own-1").unwrap();
    append(&*store, &own, events(1)).await;
    assert_eq!(shown(&*store, &own).await, [1]);
    // What is no name never reaches a store.
    for name in [
        "",
        "$own-1",
        "a\u{0}b",
        "line-\n",
        &"l".repeat(StreamId::BYTES_MAX + 1),
    ] {
        assert!(StreamId::new(name).is_err(), "{name:?}");
    }
}

pub async fn with_rows_is_refused_by_a_store_without_inline_views(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("account-1");
    let mut append = Append::new(to.clone(), events(1)).expecting(Expected::Version(Version::NONE));
    append.rows.push(InlineRow::new(
        GenerationId(u64::MAX >> 1),
        to.clone(),
        "1",
        Version::NONE,
    ));
    let appended = store.append(append).await;
    // One that keeps them skips the rows of a generation that there is not.
    assert_eq!(
        appended.is_ok(),
        store.inline_views().is_some(),
        "{appended:?}"
    );
    assert_eq!(
        whole_stream(&*store, &to).await.len(),
        usize::from(appended.is_ok())
    );
}
