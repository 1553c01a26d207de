//! Decisions over queries: what a query matches, when a condition holds, and who wins a race.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::words::*;
use super::{Dice, Fixture};
use crate::append::{Append, AppendError, Appended, Condition, Expected, IdClash, Violation};
use crate::error::Failure;
use crate::event::{NewEvent, RecordedEvent};
use crate::position::{Partition, Position};
use crate::query::{Query, QueryItem};
use crate::read::{LogPage, ReadQuery};
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, Status, StreamChange};

async fn append_if(
    store: &dyn Store,
    append: Append,
    condition: Condition,
) -> Result<Appended, AppendError> {
    store.append(append.under(condition)).await
}

async fn first_page(store: &dyn Store, read: ReadQuery) -> LogPage {
    store
        .tagged()
        .expect("the trait was declared")
        .read_query(read)
        .await
        .unwrap()
}

fn tagged(tags: &[&str]) -> Query {
    Query::tagged(tags.iter().map(|text| tag(text)))
}

fn with_tags(kind: &'static str, tags: &[&str]) -> NewEvent {
    tags.iter().fold(NewEvent::json(kind, "1"), |event, text| {
        event.tag(tag(text))
    })
}

async fn matching(store: &dyn Store, query: &Query) -> Vec<u64> {
    positions(&read_query(store, ReadQuery::of(query.clone())).await)
}

/// The position of the event that refused an append; nothing else did.
#[track_caller]
fn stood_against(error: &AppendError) -> Position {
    match error {
        AppendError::Conflict(violations) => match violations[..] {
            [Violation::Condition { position }] => position,
            _ => panic!("one violation of the condition, but they are {violations:?}"),
        },
        error => panic!("a conflict, but it is {error:?}"),
    }
}

/// Positions 1 to 6: a, b, c, d, e, f, of three types, in three streams.
async fn six(store: &dyn Store) -> [StreamId; 3] {
    let streams = ["one-1", "two-1", "three-1"].map(stream);
    let rows: [(&str, usize, &[&str]); 6] = [
        ("S", 0, &["foo:bar", "baz:foos"]),
        ("O", 1, &["foo:bar"]),
        ("S", 1, &["foo:bar"]),
        ("T", 2, &["baz:foos", "foo:bar"]),
        ("S", 0, &["foo:bar", "baz:foos"]),
        ("O", 1, &["foo:bar", "baz:foos"]),
    ];
    for (kind, to, tags) in rows {
        append(store, &streams[to], [with_tags(kind, tags)]).await;
    }
    streams
}

pub async fn queries_of_an_empty_store_match_nothing(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for query in [Query::all(), tagged(&["foo:bar"]), Query::types(["S"])] {
        let page = first_page(&*store, ReadQuery::of(query)).await;
        assert!(page.events.is_empty() && page.end);
        assert_eq!(page.head.visible, Position::START);
    }
}

pub async fn queries_match_by_type_stream_and_all_of_the_tags(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let [one, two, three] = six(&*store).await;
    let rows: [(Query, &[u64]); 19] = [
        (Query::all(), &[1, 2, 3, 4, 5, 6]),
        (tagged(&["foo:bar"]), &[1, 2, 3, 4, 5, 6]),
        (tagged(&["baz:foos"]), &[1, 4, 5, 6]),
        (tagged(&["baz:foo"]), &[]),
        (tagged(&["baz:foos", "foo:bar"]), &[1, 4, 5, 6]),
        (tagged(&["baz:foos", "foo:none"]), &[]),
        (Query::types(["S", "O"]), &[1, 2, 3, 5, 6]),
        (Query::types(["S"]), &[1, 3, 5]),
        (Query::types(["s"]), &[]),
        (Query::types(["unknown"]), &[]),
        (Query::types(["unknown", "T"]), &[4]),
        (QueryItem::types(["S"]).tag(tag("baz:foos")).into(), &[1, 5]),
        (
            Query::types(["T"]).or(QueryItem::types(["S"]).tag(tag("baz:foos"))),
            &[1, 4, 5],
        ),
        (
            tagged(&["baz:foos"]).or(Query::types(["S"])),
            &[1, 3, 4, 5, 6],
        ),
        (Query::types(["unknown"]).or(Query::types(["O"])), &[2, 6]),
        (Query::stream(two.clone()), &[2, 3, 6]),
        (
            QueryItem::types(["O"])
                .stream(two)
                .tag(tag("baz:foos"))
                .into(),
            &[6],
        ),
        (
            QueryItem::default()
                .stream(one.clone())
                .stream(three)
                .into(),
            &[1, 4, 5],
        ),
        (Query::stream(one).or(Query::types(["T"])), &[1, 4, 5]),
    ];
    for (query, expected) in rows {
        assert_eq!(matching(&*store, &query).await, expected, "{query:?}");
    }
}

pub async fn queries_match_the_same_whatever_the_range_limit_and_direction(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    six(&*store).await;
    let all = whole_log(&*store, Partition(0)).await;
    let queries = [
        Query::all(),
        tagged(&["baz:foos"]),
        Query::types(["S", "O"]),
        Query::types(["T"]).or(tagged(&["baz:foos"])),
    ];
    for query in queries {
        for (after, up_to) in [(0, 99), (3, 99), (123, 200), (0, 4), (3, 5), (4, 4), (5, 2)] {
            let in_range = |event: &&RecordedEvent| {
                event.position.get() > after && event.position.get() <= up_to
            };
            let mut expected: Vec<u64> = all
                .iter()
                .filter(in_range)
                .filter(|event| query.matches(event))
                .map(|event| event.position.get())
                .collect();
            let read = ReadQuery::of(query.clone())
                .after(Position::new(after))
                .up_to(Position::new(up_to));
            for backward in [false, true] {
                for limit in [1, 2, 3, 1_000] {
                    let read = read.clone().limit(limit);
                    let read = if backward { read.backward() } else { read };
                    let first: Vec<u64> = expected.iter().copied().take(limit).collect();
                    assert_eq!(
                        positions(&first_page(&*store, read.clone()).await.events),
                        first,
                        "{read:?}"
                    );
                    assert_eq!(
                        positions(&read_query(&*store, read.clone()).await),
                        expected,
                        "{read:?}"
                    );
                    let one = first_page(&*store, read.limit(0)).await.events;
                    assert_eq!(positions(&one), first[..first.len().min(1)]);
                }
                expected.reverse();
            }
        }
    }
}

pub async fn tags_match_whole_and_a_key_may_have_several_values(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let rows: [&[&str]; 8] = [
        &["fb:1"],
        &["fb:1", "bf:1"],
        &["bf:1", "fb:1"],
        &["bf:1"],
        &["bfnot:1"],
        &["fb:1", "bnf:1"],
        &["bf:1", "fb:1", "x:1"],
        &[
            "fb:11", "bf:10", "fb1:1", "xfb:1", "FB:1", "fb:1 ", "fb_1:1",
        ],
    ];
    for (n, tags) in rows.into_iter().enumerate() {
        append(
            &*store,
            &stream(format!("tags-{n}")),
            [with_tags("T", tags)],
        )
        .await;
    }
    assert_eq!(
        matching(&*store, &tagged(&["fb:1"]).or(tagged(&["bf:1"]))).await,
        [1, 2, 3, 4, 6, 7]
    );
    assert_eq!(
        matching(&*store, &tagged(&["fb:1", "bf:1"])).await,
        [2, 3, 7]
    );
    assert_eq!(
        matching(&*store, &tagged(&["fb:1", "fb:1"])).await,
        [1, 2, 3, 6, 7]
    );
    assert_eq!(matching(&*store, &tagged(&["fb:11"])).await, [8]);
    for wildcard in ["fb:%", "f_:1", "%:1", "fb:*"] {
        assert!(
            matching(&*store, &tagged(&[wildcard])).await.is_empty(),
            "{wildcard}"
        );
    }
    append(
        &*store,
        &stream("tags-9"),
        [with_tags(
            "T",
            &["user:ada", "user:bob", "ü:\u{10ffff}", "u:http://x?a=b&c"],
        )],
    )
    .await;
    for tags in [
        &["user:ada"][..],
        &["user:bob"],
        &["user:bob", "user:ada"],
        &["ü:\u{10ffff}"],
        &["u:http://x?a=b&c"],
    ] {
        assert_eq!(matching(&*store, &tagged(tags)).await, [9], "{tags:?}");
    }
}

pub async fn a_condition_holds_when_nothing_newer_matches(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    six(&*store).await;
    let to = stream("decided-1");
    let request = || to_streams([(&to, with_tags("D", &["d:1"]))]);
    let none = Condition::none_matches;
    let after = |query: Query, position: u64| none(query).after(Position::new(position));
    // The query and the position, and what refuses it.
    let rows = [
        (after(tagged(&["baz:foos"]), 6), None),
        (after(tagged(&["baz:foos"]), 99), None),
        (after(tagged(&["baz:foos"]), 5), Some(6)),
        (after(tagged(&["baz:foos"]), 1), Some(4)),
        (after(tagged(&["baz:foos"]), 0), Some(1)),
        (none(tagged(&["baz:foos"])), Some(1)),
        // What came later has nothing to do with it.
        (after(Query::types(["S"]), 5), None),
        (after(Query::types(["T"]), 4), None),
        (none(Query::types(["T"])), Some(4)),
        (none(Query::types(["unknown"])), None),
        (none(tagged(&["baz:none"])), None),
        (
            none(QueryItem::types(["T"]).tag(tag("none:1")).into()),
            None,
        ),
        (none(tagged(&["foo:bar", "none:1"])), None),
        (
            after(Query::types(["T"]).or(Query::types(["S"])), 4),
            Some(5),
        ),
        (after(Query::stream(stream("two-1")), 6), None),
        (after(Query::stream(stream("two-1")), 4), Some(6)),
        (after(Query::types(["S", "O", "T"]), 6), None),
    ];
    for (condition, against) in rows {
        match against {
            None => drop(
                append_if(&*store, request(), condition.clone())
                    .await
                    .unwrap_or_else(|error| panic!("{condition:?}: {error}")),
            ),
            Some(position) => {
                let error = refused(
                    &*store,
                    &[&to],
                    append_if(&*store, request(), condition.clone()),
                )
                .await;
                let found = stood_against(&error);
                // Any match that is newer than the condition says it; which one is the store's
                // choice.
                let all = whole_log(&*store, Partition(0)).await;
                assert!(found.get() >= position, "{condition:?}");
                assert!(
                    condition.query.matches(&all[found.get() as usize - 1]),
                    "{condition:?}: {found}"
                );
            }
        }
    }
}

pub async fn a_condition_sees_what_was_appended_under_the_last_one(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut store = store;
    let to = stream("claims-1");
    let claim = || to_streams([(&to, with_tags("claimed", &["name:ada"]))]);
    let unclaimed = || Condition::none_matches(tagged(&["name:ada"]));
    let first = append_if(&*store, claim(), unclaimed())
        .await
        .unwrap()
        .last()
        .position;
    for reopened in [false, true] {
        if reopened {
            store = reopen(fixture, store).await;
        }
        assert_eq!(
            stood_against(
                &refused(&*store, &[&to], append_if(&*store, claim(), unclaimed())).await
            ),
            first
        );
    }
    let second = append_if(&*store, claim(), unclaimed().after(first))
        .await
        .unwrap()
        .last()
        .position;
    let error = refused(
        &*store,
        &[&to],
        append_if(&*store, claim(), unclaimed().after(first)),
    )
    .await;
    assert_eq!(stood_against(&error), second);
}

pub async fn a_condition_sees_what_is_hidden_from_ordinary_reads(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let hidden = stream("hidden-1");
    let to = stream("decided-1");
    append(&*store, &hidden, [with_tags("claimed", &["name:ada"])]).await;
    store
        .change_stream(ChangeStream::new(&hidden, StreamChange::Delete))
        .await
        .unwrap();
    assert_eq!(matching(&*store, &tagged(&["name:ada"])).await, [1]);
    let request = to_streams([(&to, event("1"))]);
    let error = append_if(
        &*store,
        request,
        Condition::none_matches(tagged(&["name:ada"])),
    )
    .await
    .unwrap_err();
    assert_eq!(stood_against(&error), Position::new(1));
}

pub async fn a_query_without_items_is_invalid(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    six(&*store).await;
    let to = stream("decided-1");
    let empty = Query::default();
    let error = store
        .tagged()
        .unwrap()
        .read_query(ReadQuery::of(empty.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let request = to_streams([(&to, event("1"))]);
    let error = refused(
        &*store,
        &[&to],
        append_if(&*store, request, Condition::none_matches(empty)),
    )
    .await;
    assert_invalid(&error, "query");
    let named = Query::types(["decided", "a\0b"]);
    let tagged = store.tagged().unwrap();
    let refused = tagged.read_query(ReadQuery::of(named)).await.unwrap_err();
    assert_eq!(refused.failure(), Failure::Invalid);
    let said =
        "the query names the type `a\\0b`, which holds a control character: no event has one";
    assert_eq!(refused.to_string(), said);
}

pub async fn a_condition_and_expectations_must_hold_together(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let [one, two, _] = six(&*store).await;
    let request = |version| {
        to_streams([(&one, event("1"))])
            .requiring(one.clone(), Expected::Version(Version::new(version)))
            .requiring(two.clone(), Expected::Exists)
    };
    let condition =
        |after| Condition::none_matches(tagged(&["baz:foos"])).after(Position::new(after));
    let attempt = |version, after| append_if(&*store, request(version), condition(after));
    let error = refused(&*store, &[&one, &two], attempt(1, 6)).await;
    assert_eq!(conflicts(&error), [(0, Status::Active, 2)]);
    assert_eq!(
        stood_against(&refused(&*store, &[&one, &two], attempt(2, 5)).await),
        Position::new(6)
    );
    let AppendError::Conflict(both) = refused(&*store, &[&one, &two], attempt(1, 5)).await else {
        panic!("a conflict")
    };
    assert!(
        both.iter()
            .any(|violation| matches!(violation, Violation::Stream { index: 0, .. })),
        "{both:?}"
    );
    assert!(
        both.iter()
            .any(|violation| matches!(violation, Violation::Condition { .. })),
        "all are told: {both:?}"
    );
    assert_eq!(versions_of(&attempt(2, 6).await.unwrap()), [3]);
}

pub async fn an_append_is_deduplicated_before_its_condition_is_checked(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("claims-1");
    let claim = with_tags("claimed", &["name:ada"]);
    let request = || to_streams([(&to, claim.clone())]);
    let unclaimed = || Condition::none_matches(tagged(&["name:ada"]));
    let first = append_if(&*store, request(), unclaimed()).await.unwrap();
    let store = reopen(fixture, store).await;
    let again = unchanged(&*store, &[&to], append_if(&*store, request(), unclaimed()))
        .await
        .unwrap();
    assert_eq!((&again, again.was_repeated()), (&first, true));
    let mut other = claim.clone();
    other.tags = vec![tag("name:bob")];
    let request = to_streams([(&to, other)]);
    let error = refused(&*store, &[&to], append_if(&*store, request, unclaimed())).await;
    assert!(
        matches!(
            error,
            AppendError::IdClash(IdClash::OtherContent { index: 0, .. })
        ),
        "{error:?}"
    );
    let partly = to_streams([(&to, claim.clone()), (&to, event("new"))]);
    let error = refused(&*store, &[&to], append_if(&*store, partly, unclaimed())).await;
    assert!(
        matches!(
            error,
            AppendError::IdClash(IdClash::PartlyKnown { first_unknown: 1 })
        ),
        "{error:?}"
    );
}

pub async fn of_racers_for_one_tag_exactly_one_wins(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    append(&*store, &stream("begun-1"), [with_tags("T", &["seat:1"])]).await;
    for racers in [2, 8, 16] {
        for after in [None, Some(())] {
            let seat = format!("seat:{racers}-{}", after.is_some());
            let mut condition = Condition::none_matches(tagged(&[&seat]));
            if after.is_some() {
                let before = append(&*store, &stream("begun-1"), [with_tags("T", &[&seat])]).await;
                condition = condition.after(before.last().position);
            }
            let outcomes = at_once((0..racers).map(|racer| {
                let store = Arc::clone(&store);
                let seat = seat.clone();
                let condition = condition.clone();
                async move {
                    let to = stream(format!("racer-{racer}"));
                    append_if(
                        &*store,
                        to_streams([(&to, with_tags("T", &[&seat]))]),
                        condition,
                    )
                    .await
                }
            }))
            .await;
            let won: Vec<Position> = outcomes
                .iter()
                .filter_map(|outcome| outcome.as_ref().ok())
                .map(|won| won.last().position)
                .collect();
            assert_eq!(won.len(), 1, "{outcomes:?}");
            for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                assert_eq!(stood_against(error), won[0], "a refusal names its reason");
            }
        }
    }
}

/// A asks for one tag and writes the other, B the other way round.
pub async fn of_two_crosswise_decisions_at_most_one_goes_through(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for round in 0..25 {
        let tags = [format!("left:{round}"), format!("right:{round}")];
        let outcomes = at_once((0..2).map(|side| {
            let store = Arc::clone(&store);
            let tags = tags.clone();
            async move {
                let request = to_streams([(
                    &stream(format!("side-{side}")),
                    with_tags("T", &[&tags[1 - side]]),
                )]);
                append_if(
                    &*store,
                    request,
                    Condition::none_matches(tagged(&[&tags[side]])),
                )
                .await
            }
        }))
        .await;
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            1,
            "{outcomes:?}"
        );
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            stood_against(error);
        }
    }
}

pub async fn decisions_that_have_nothing_in_common_never_conflict(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    at_once((0..16).map(|task| {
        let store = Arc::clone(&store);
        async move {
            let to = stream(format!("own-{task}"));
            let own = format!("own:{task}");
            let mut last = None;
            for n in 0..15 {
                let page = first_page(&*store, ReadQuery::of(tagged(&[&own]))).await;
                assert_eq!(page.events.len(), n);
                let found = page.events.last().map(|event| event.position);
                assert_eq!(found, last);
                // Half of them guard by what they found, half by how far the log went.
                let mut condition = Condition::none_matches(tagged(&[&own]));
                if let Some(found) = found {
                    condition = condition.after(if task % 2 == 0 {
                        found
                    } else {
                        page.head.visible
                    });
                }
                let request = to_streams([(&to, with_tags("T", &[&own]))]);
                last = Some(
                    append_if(&*store, request, condition)
                        .await
                        .unwrap()
                        .last()
                        .position,
                );
            }
        }
    }))
    .await;
    assert_eq!(head(&*store, Partition(0)).await, Position::new(16 * 15));
}

/// Pages with their heads, read while others append: whatever matches at or below the head of a
/// page is in the page.
pub async fn the_head_of_a_decision_belongs_to_its_events(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let store = Arc::clone(&store);
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let mut pages = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let page = first_page(&*store, ReadQuery::of(tagged(&["k:wanted"]))).await;
                assert!(page.end, "so few events fit into one page");
                pages.push((page.head.visible, positions(&page.events)));
                tokio::task::yield_now().await;
            }
            pages
        })
    };
    at_once((0..4).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            for n in 0..50 {
                let wanted = if n % 3 == 0 { "k:wanted" } else { "k:other" };
                append(
                    &*store,
                    &stream(format!("writer-{writer}")),
                    [with_tags("T", &[wanted])],
                )
                .await;
            }
        }
    }))
    .await;
    done.store(true, Ordering::SeqCst);
    let all = matching(&*store, &tagged(&["k:wanted"])).await;
    for (head, found) in reader.await.unwrap() {
        let expected: Vec<u64> = all
            .iter()
            .copied()
            .filter(|position| *position <= head.get())
            .collect();
        assert_eq!(
            found, expected,
            "the head {head} is of another moment than the events"
        );
    }
}

pub async fn an_append_between_reading_and_deciding_is_noticed(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("between-1");
    let query = tagged(&["k:wanted"]);
    let page = first_page(&*store, ReadQuery::of(query.clone())).await;
    let between = append(&*store, &to, [with_tags("T", &["k:wanted"])])
        .await
        .last()
        .position;
    let condition = Condition::none_matches(query.clone()).after(page.head.visible);
    let error = refused(
        &*store,
        &[&to],
        append_if(&*store, to_streams([(&to, event("1"))]), condition),
    )
    .await;
    assert_eq!(stood_against(&error), between);
    // The same boundary, loaded twice in one decision, does not conflict with itself.
    let one = first_page(&*store, ReadQuery::of(query.clone()));
    let two = first_page(&*store, ReadQuery::of(query.clone()));
    let guard = one.await.head.visible.min(two.await.head.visible);
    let condition = Condition::none_matches(query.clone().or(query)).after(guard);
    append_if(
        &*store,
        to_streams([(&to, with_tags("T", &["k:wanted"]))]),
        condition,
    )
    .await
    .unwrap();
}

const WORKERS: u64 = 40;
const DECISIONS: u64 = 10;

/// The items of a query as numbers, types and tags of each, so that an event can keep it.
type Items = Vec<(Vec<u64>, Vec<u64>)>;

/// A query that a worker thinks up.
fn thought_up(dice: &mut Dice) -> Items {
    let some = |dice: &mut Dice, of: u64| -> Vec<u64> {
        let mut picked: Vec<u64> = (0..dice.roll(3)).map(|_| dice.roll(of)).collect();
        picked.sort_unstable();
        picked.dedup();
        picked
    };
    (0..1 + dice.roll(2))
        .map(|_| match (some(dice, 4), some(dice, 5)) {
            // Everything would be one boundary for all.
            (types, tags) if types.is_empty() && tags.is_empty() => (types, vec![dice.roll(5)]),
            item => item,
        })
        .collect()
}

fn query_of(items: &[(Vec<u64>, Vec<u64>)]) -> Query {
    items.iter().fold(Query::default(), |query, (types, tags)| {
        let item = QueryItem::types(types.iter().map(|n| format!("type{n}")));
        query.or(tags
            .iter()
            .fold(item, |item, n| item.tag(tag(&format!("k:{n}")))))
    })
}

/// Forty workers decide ten times each over queries of their own. Every event keeps its query and
/// the highest match that its writer saw; in the end no match may lie between that and the event.
pub async fn no_decision_misses_what_it_was_decided_on(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    at_once((0..WORKERS).map(|worker| {
        let store = Arc::clone(&store);
        async move {
            let mut dice = Dice::new(worker + 1);
            for _ in 0..DECISIONS {
                decide(&*store, worker, &mut dice).await;
            }
        }
    }))
    .await;
    let all = whole_log(&*store, Partition(0)).await;
    assert_eq!(all.len() as u64, WORKERS * DECISIONS);
    for event in &all {
        let (items, saw): (Items, u64) = serde_json::from_slice(&event.payload).unwrap();
        let query = query_of(&items);
        let before = &all[..event.position.get() as usize - 1];
        let newest = before
            .iter()
            .rev()
            .find(|event| query.matches(event))
            .map_or(0, |event| event.position.get());
        assert_eq!(
            newest, saw,
            "the event at {} was decided on less than there was",
            event.position
        );
    }
}

async fn decide(store: &dyn Store, worker: u64, dice: &mut Dice) {
    let items = thought_up(dice);
    let query = query_of(&items);
    let kind = dice.roll(4);
    let key = dice.roll(5);
    loop {
        let page = first_page(store, ReadQuery::of(query.clone()).backward().limit(1)).await;
        let saw = page
            .events
            .first()
            .map_or(Position::START, |event| event.position);
        let guard = if worker.is_multiple_of(2) {
            saw
        } else {
            page.head.visible
        };
        let condition = Condition::none_matches(query.clone());
        let condition = if guard == Position::START {
            condition
        } else {
            condition.after(guard)
        };
        let event = NewEvent::json(format!("type{kind}"), json!([items, saw.get()]).to_string());
        let event = event
            .tag(tag(&format!("k:{key}")))
            .tag(tag(&format!("worker:{worker}")));
        match append_if(
            store,
            to_streams([(&stream(format!("worker-{worker}")), event)]),
            condition,
        )
        .await
        {
            Ok(_) => return,
            Err(error) => {
                let against = stood_against(&error);
                assert!(against > guard, "refused for what it knew");
            }
        }
    }
}

pub async fn a_conditional_append_is_whole_or_absent_when_dropped(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    drop_everywhere(&*store, async |round, given| {
        let key = format!("round:{round}");
        let given = given.into_iter().map(|event| event.tag(tag(&key)));
        let a = stream(format!("a-{round}"));
        let b = stream(format!("b-{round}"));
        let request = to_streams([&a, &b, &a].into_iter().zip(given));
        append_if(&*store, request, Condition::none_matches(tagged(&[&key]))).await
    })
    .await;
}
