//! Keys of any text, numbers at the ends of their types, moments outside of the log, long queues.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::chrono::{DateTime, NaiveDate, Utc};
use annals_core::conformance::rounds;
use annals_core::{Aggregate, Annals, Partition, Position, Recorded, Snapshots, StreamId, Token};
use annals_macros::{Event, View};
use annals_projections::{
    Handlers, Poison, Program, Project, ReadModels, Row, RowEntry, View, ViewError, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{
    Account, AccountEvent, Balance, deposited, happens, mend, noted, options, program, program_with,
};
use super::gateway::{Gateway, TIMEOUT, Texts, settled, texts};
use super::test_store::{TestStore, store};

/// Rows by the text of a note; one that begins with `!` makes no sense to the row of the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "words",
    version = 1,
    events(AccountEvent),
    key = String,
    history(bitemporal),
    crate = "annals_projections"
)]
struct Words {
    #[view(index)]
    word: String,
    events: u8,
}

impl Project<AccountEvent> for Words {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<String>, Poison> {
        let AccountEvent::Noted { text } = &**event else {
            return Ok(Vec::new());
        };
        Ok(vec![text.strip_prefix('!').unwrap_or(text).to_owned()])
    }

    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        let AccountEvent::Noted { text } = &**event else {
            return Ok(());
        };
        if let Some(word) = text.strip_prefix('!') {
            return Err(Poison::new(format!("no \0 sense\u{1b} in `{word}`")));
        }
        row.word.clone_from(text);
        row.events += 1;
        Ok(())
    }
}

/// In the order of their bytes.
fn words() -> Vec<String> {
    let longest = "x".repeat(255);
    let mut words = [
        "",
        "\0",
        "a",
        "a\0",
        "a\0b",
        "A",
        "a ",
        "\u{1f}",
        "\u{10ffff}",
        "'",
        "\"",
        "\\",
        "%",
        "_",
        "é",
        "e\u{301}",
        &longest,
        "\u{d7ff}",
        "\u{e000}",
        "{\"a\":1}",
        "null",
        "007",
    ]
    .map(str::to_owned);
    words.sort_unstable();
    words.into()
}

/// All rows in pages of two, by key or by index, from either end.
async fn pages(db: &Program, by_index: bool, is_backward: bool) -> Vec<RowEntry<Words>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let mut rows = db.view::<Words>().rows().limit(2).after(after);
        if by_index {
            rows = rows.by_index::<String>("word", ..);
        }
        if is_backward {
            rows = rows.backward();
        }
        let page = rows.await.unwrap();
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn each_word_has_its_row(db: &Program, words: &[String]) {
    for (by_index, is_backward) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut found = pages(db, by_index, is_backward).await;
        if is_backward {
            found.reverse();
        }
        let keys: Vec<_> = found.iter().map(|row| row.key.clone()).collect();
        assert_eq!(keys, words, "by index: {by_index}, backward: {is_backward}");
        assert!(
            found
                .iter()
                .all(|row| row.value.word == row.key && row.value.events == 1)
        );
    }
    let view = db.view::<Words>();
    for word in words {
        let row = view.get(word.clone()).await.unwrap().unwrap();
        assert_eq!((&row.word, row.events), (word, 1));
        let only = word.clone()..=word.clone();
        assert_eq!(view.rows().keys(only.clone()).await.unwrap().rows.len(), 1);
        let by_index = view.rows().by_index("word", only);
        assert_eq!(by_index.await.unwrap().rows.len(), 1, "{word:?}");
        let past = view.history(word.clone()).await.unwrap().versions;
        assert_eq!(past.len(), 1, "{word:?}");
    }
    assert_eq!(
        view.rows().of(words.to_vec()).await.unwrap().rows.len(),
        words.len()
    );
}

pub(crate) async fn keys_of_any_text_have_rows_of_their_own() {
    let store = store().await;
    let setup = || Words::projection().options(options().slots(3));
    let db = Annals::on(store.handle())
        .with(setup())
        .start()
        .await
        .unwrap();
    let words = words();
    let mut last = None;
    for word in &words {
        last = Some(happens(&db, "notes", noted(word)).await);
    }
    let view = db.view::<Words>();
    view.wait_for(&last.take().unwrap(), TIMEOUT).await.unwrap();
    each_word_has_its_row(&db, &words).await;

    // Their dead letters are told apart, too, and say what was said.
    let mut bad = BTreeMap::new();
    for word in &words {
        let done = happens(&db, "notes", noted(&format!("!{word}"))).await;
        bad.insert(word.clone(), done.events()[0].position);
        last = Some(happens(&db, "notes", noted("after all")).await);
    }
    view.wait_for(&last.unwrap(), TIMEOUT).await.unwrap();
    let dead = view.dead_letter_keys(None, 100).await.unwrap();
    let keys: Vec<_> = dead.iter().map(|of| of.key.clone()).collect();
    assert_eq!(keys, words);
    for (of, word) in dead.iter().zip(&words) {
        assert_eq!(of.reason, format!("no \0 sense\u{1b} in `{word}`"));
    }
    let reason = "it's a \0 \"reason\"\\";
    for (number, word) in words.iter().enumerate() {
        let settled = match number % 3 {
            0 => view.skip(word.clone(), bad[word], reason).await,
            1 => view.discard(word.clone(), reason).await,
            _ => view.retry(word.clone()).await,
        };
        let is_still = settled.unwrap().still.is_some();
        assert_eq!(is_still, number % 3 == 2, "{word:?}");
    }
    let dead = view.dead_letter_keys(None, 100).await.unwrap();
    assert_eq!(dead.len(), words.len() / 3);
    let decisions = view.dead_letters().skip_decisions().await.unwrap();
    assert!(decisions.iter().all(|of| of.reason == reason));
    assert_eq!(decisions.len(), words.len() - dead.len());

    let building = db.rebuild::<Words>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    let dead_again = view.dead_letter_keys(None, 100).await.unwrap();
    assert_eq!(dead_again.len(), dead.len());
    let mut all = words.clone();
    all.push("after all".into());
    all.sort_unstable();
    let rows = pages(&db, false, false).await;
    assert_eq!(
        rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(),
        all
    );
    db.stop().await;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    Unit,
    New(i128),
    Tuple(u128, f64),
    Struct { inner: Box<Option<Nested>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Marked {
    Large { number: u64, real: f64 },
    Small { number: i64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Bare {
    Large(u64),
    Small(i64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    flat_number: u64,
    flat_real: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ends {
    signed: i64,
    unsigned: u64,
    deep: i128,
    wide: u128,
    real: f64,
    short: f32,
    sign: char,
    text: String,
    time: DateTime<Utc>,
    day: NaiveDate,
    span: Duration,
    maybe: Option<u64>,
    pairs: Vec<(i8, u16)>,
    named: BTreeMap<i64, String>,
    nested: Nested,
    marked: Marked,
    bare: Vec<Bare>,
    #[serde(flatten)]
    flat: Flat,
}

fn largest() -> Ends {
    Ends {
        signed: i64::MAX,
        unsigned: u64::MAX,
        deep: i128::MAX,
        wide: u128::MAX,
        real: f64::MAX,
        short: f32::MAX,
        sign: '\u{10ffff}',
        text: "\u{2028}\u{10ffff}\"\\".into(),
        time: DateTime::<Utc>::MAX_UTC,
        day: NaiveDate::MAX,
        span: Duration::MAX,
        maybe: Some(u64::MAX),
        pairs: vec![(i8::MIN, u16::MAX); 3],
        named: BTreeMap::from([(i64::MIN, String::new()), (i64::MAX, "last".into())]),
        nested: Nested::Struct {
            inner: Box::new(Some(Nested::Tuple(u128::MAX, f64::EPSILON))),
        },
        marked: Marked::Large {
            number: u64::MAX,
            real: 0.1 + 0.2,
        },
        bare: vec![
            Bare::Large(u64::MAX),
            Bare::Small(i64::MIN),
            Bare::Text("7".into()),
        ],
        flat: Flat {
            flat_number: u64::MAX,
            flat_real: 13.715571970987849,
        },
    }
}

fn smallest() -> Ends {
    Ends {
        signed: i64::MIN,
        unsigned: 0,
        deep: i128::MIN,
        wide: 0,
        real: -0.0,
        short: f32::from_bits(1),
        sign: '\0',
        text: "\0".into(),
        time: DateTime::<Utc>::MIN_UTC,
        day: NaiveDate::MIN,
        span: Duration::ZERO,
        maybe: None,
        pairs: Vec::new(),
        named: BTreeMap::new(),
        nested: Nested::New(i128::MIN),
        marked: Marked::Small { number: i64::MIN },
        bare: Vec::new(),
        flat: Flat {
            flat_number: 0,
            flat_real: f64::from_bits(1),
        },
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "probe", crate = "annals_core")]
enum ProbeEvent {
    Seen { ends: Ends },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "probes",
    version = 1,
    events(ProbeEvent),
    history,
    crate = "annals_projections"
)]
struct Probe {
    #[view(index)]
    signed: i64,
    #[view(index)]
    unsigned: u64,
    last: Option<Ends>,
}

impl Project<ProbeEvent> for Probe {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<ProbeEvent>) -> Result<(), Poison> {
        let ProbeEvent::Seen { ends } = &**event;
        row.signed = ends.signed;
        row.unsigned = ends.unsigned;
        row.last = Some(ends.clone());
        Ok(())
    }
}

impl Aggregate for Probe {
    type Event = ProbeEvent;

    fn apply(&mut self, event: &ProbeEvent) {
        let ProbeEvent::Seen { ends } = event;
        self.last = Some(ends.clone());
    }

    fn snapshots() -> Option<Snapshots<Probe>> {
        Some(Snapshots::every(1))
    }
}

pub(crate) async fn values_at_the_ends_of_their_types_come_back() {
    let store = store().await;
    let db = Annals::on(store.handle()).with(Probe::projection());
    let db = db.start().await.unwrap();
    let mut plain = smallest();
    plain.nested = Nested::Unit;
    let all = [("large", largest()), ("small", smallest()), ("unit", plain)];
    let view = db.view::<Probe>();
    for (name, ends) in &all {
        let decided = |_: &Probe| Ok::<_, String>(ProbeEvent::Seen { ends: ends.clone() });
        let done = db.aggregate::<Probe>(*name).run(decided).await.unwrap();
        let row = view.get(*name).at_least(&done).await.unwrap().unwrap();
        assert_eq!(row.last.as_ref(), Some(ends));
        let fresh = Annals::on(store.handle());
        let state = fresh.aggregate::<Probe>(*name).load().await.unwrap();
        assert_eq!(state.last.as_ref(), Some(ends));
    }
    assert_eq!(view.dead_letter_keys(None, 9).await.unwrap(), []);
    let building = db.rebuild::<Probe>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    for (name, ends) in &all {
        let row = view.get(*name).await.unwrap().unwrap();
        assert_eq!(row.last.as_ref(), Some(ends));
    }
    let ends = [
        view.rows().by_index("signed", i64::MAX..).await,
        view.rows().by_index("signed", ..=i64::MIN).limit(1).await,
        view.rows().by_index("unsigned", u64::MAX..=u64::MAX).await,
    ];
    let keys = ends.map(|page| {
        page.unwrap()
            .rows
            .iter()
            .map(|row| row.key.clone())
            .collect()
    });
    let keys: [Vec<String>; 3] = keys;
    assert_eq!(keys, [["large"], ["small"], ["large"]]);
    db.stop().await;
}

pub(crate) async fn a_follower_goes_on_where_its_last_event_was_archived() {
    let store = store().await;
    let gateway = Gateway::default();
    let start = async || {
        let view = Balance::projection().options(options());
        let db = Annals::on(store.handle()).with(view).with(texts(&gateway));
        db.start().await.unwrap()
    };
    let db = start().await;
    let first = happens(&db, "alice", deposited(1)).await;
    db.view::<Balance>()
        .wait_for(&first, TIMEOUT)
        .await
        .unwrap();
    settled(&db, &first).await;
    db.stop().await;
    let quiet = Annals::on(store.handle());
    let summary = |_: &Account| Ok::<_, String>(noted("archived"));
    quiet
        .aggregate::<Account>("alice")
        .archive(summary)
        .await
        .unwrap();
    happens(&quiet, "bob", deposited(2)).await;
    quiet.aggregate::<Account>("bob").delete().await.unwrap();

    for cents in [3, 4] {
        let db = start().await;
        let done = happens(&db, "carol", deposited(cents)).await;
        let view = db.view::<Balance>();
        view.wait_for(&done, TIMEOUT).await.unwrap();
        settled(&db, &done).await;
        let alice = view.get("alice").await.unwrap().unwrap();
        assert_eq!((alice.cents, alice.events), (1, 2));
        db.stop().await;
    }
    assert_eq!(gateway.sent_to("alice"), [1]);
    assert_eq!(gateway.sent_to("carol"), [3, 4]);
}

pub(crate) async fn moments_and_positions_outside_of_the_log_are_answered() {
    let store = store().await;
    let gateway = Gateway::default();
    let view = Balance::projection().options(options());
    let db = Annals::on(store.handle()).with(view).with(texts(&gateway));
    let db = db.start().await.unwrap();
    happens(&db, "alice", deposited(1)).await;
    let done = happens(&db, "alice", deposited(2)).await;
    let view = db.view::<Balance>();
    view.wait_for(&done, TIMEOUT).await.unwrap();
    let [none, both] = [None, Some(3)];
    let cents = |row: Result<Option<Balance>, ViewError>| row.unwrap().map(|row| row.cents);
    assert_eq!(cents(view.get("alice").as_of(0).await), none);
    assert_eq!(cents(view.get("alice").as_of(u64::MAX).await), both);
    assert_eq!(
        cents(view.get("alice").as_of(DateTime::<Utc>::MIN_UTC).await),
        none
    );
    assert_eq!(
        cents(view.get("alice").as_of(DateTime::<Utc>::MAX_UTC).await),
        both
    );
    for limit in [0, 1, usize::MAX] {
        let rows = view.rows().limit(limit).await.unwrap().rows;
        let then = view.rows().limit(limit).as_of(2).await.unwrap().rows;
        let keys = view.dead_letter_keys(None, limit).await.unwrap();
        assert_eq!((rows.len(), then.len(), keys.len()), (1, 1, 0), "{limit}");
        let past = view.history("alice").limit(limit).await.unwrap();
        assert_eq!(past.versions.len(), limit.clamp(1, 2));
    }
    let past = view.history("alice").after(Position::MAX).await.unwrap();
    assert_eq!(past.versions.len(), 0);
    let changed = view
        .changed_between(0, u64::MAX)
        .limit(usize::MAX)
        .await
        .unwrap();
    assert_eq!(changed.changes.len(), 1);

    let reactor = db.reactor::<Texts>();
    for position in [0, 1, 3, u64::MAX] {
        let skipped = view.skip("alice", position, "never").await;
        assert!(matches!(skipped, Err(ViewError::Invalid(_))), "{skipped:?}");
        let skipped = view.skip_event(position, "never").await;
        assert!(matches!(skipped, Err(ViewError::Invalid(_))), "{skipped:?}");
        let skipped = reactor.skip("account-alice", position, "never").await;
        assert!(matches!(skipped, Err(ViewError::Invalid(_))), "{skipped:?}");
    }
    let far = Token::new(store.id()).with(Partition(0), Position::MAX);
    let early = view
        .get("alice")
        .at_least(far)
        .within(Duration::from_millis(20));
    assert!(matches!(early.await, Err(ViewError::NotYet { .. })));

    settled(&db, &done).await;
    // Beyond the head is the head: what comes is called for.
    let at = reactor.skip_to(u64::MAX).await.unwrap();
    assert_eq!(at.position(Partition(0)).get(), 2);
    let done = happens(&db, "alice", deposited(4)).await;
    settled(&db, &done).await;
    // Moving a reactor takes its lease, and a call of that moment is made again.
    let mut sent = gateway.sent_to("alice");
    sent.dedup();
    assert_eq!(sent, [1, 2, 4]);
    reactor.repeat_from(u64::MAX).await.unwrap();
    reactor.repeat_from(DateTime::<Utc>::MIN_UTC).await.unwrap();
    let done = happens(&db, "alice", deposited(8)).await;
    settled(&db, &done).await;
    let sent = gateway.sent_to("alice");
    for (cents, times) in [(1, 2), (2, 2), (4, 2), (8, 1)] {
        let found = sent.iter().filter(|of| **of == cents).count();
        assert!(found >= times, "{cents} in {sent:?}");
    }
    db.stop().await;
}

/// A first event that makes no sense, and so many more of its key, in one append.
async fn a_long_queue(store: &TestStore, events: i64) -> Program {
    let db = program_with(store, options().dead_letters_max(events as usize + 1)).await;
    happens(&db, "alice", noted("poison")).await;
    let all = |_: &Account| Ok::<_, String>((0..events).map(deposited).collect::<Vec<_>>());
    let done = db.aggregate::<Account>("alice").run(all).await.unwrap();
    db.view::<Balance>().wait_for(&done, TIMEOUT).await.unwrap();
    db
}

pub(crate) async fn a_queue_of_several_pages_is_settled_whole() {
    let events = 2_000;
    let discarding = store().await;
    let db = a_long_queue(&discarding, events).await;
    let view = db.view::<Balance>();
    let keys = view.dead_letter_keys(None, 9).await.unwrap();
    assert_eq!((keys.len(), keys[0].queued), (1, events as u64));
    let discarded = view.discard("alice", "a test").await.unwrap();
    assert_eq!(
        (discarded.events, discarded.still),
        (events as u64 + 1, None)
    );
    let done = happens(&db, "alice", deposited(7)).await;
    let row = view.get("alice").at_least(&done).await.unwrap();
    assert_eq!(
        row,
        Some(Balance {
            cents: 7,
            events: 1
        })
    );
    db.stop().await;

    let retrying = store().await;
    let db = a_long_queue(&retrying, events).await;
    let view = db.view::<Balance>();
    mend();
    let retried = view.retry("alice").await.unwrap();
    assert_eq!((retried.events, retried.still), (events as u64 + 1, None));
    let sum = (0..events).sum();
    let row = view.get("alice").await.unwrap();
    let all = events as u64 + 1;
    assert_eq!(
        row,
        Some(Balance {
            cents: sum,
            events: all
        })
    );
    db.stop().await;
}

pub(crate) async fn many_keys_are_asked_for_at_once() {
    let store = store().await;
    let db = program(&store).await;
    let done = happens(&db, "7", deposited(1)).await;
    let view = db.view::<Balance>();
    view.wait_for(&done, TIMEOUT).await.unwrap();
    let count = rounds(9_000, 40_000);
    let keys = || (0..count).map(|key| key.to_string());
    assert_eq!(
        view.rows()
            .of(keys())
            .limit(usize::MAX)
            .await
            .unwrap()
            .rows
            .len(),
        1
    );
    assert_eq!(view.rows().of(keys()).as_of(1).await.unwrap().rows.len(), 1);
    let found = view.many(keys()).await.unwrap();
    assert_eq!(
        (found.len(), found.into_iter().flatten().count()),
        (count as usize, 1)
    );
    let found = view.many(keys()).as_of(1).await.unwrap();
    assert_eq!(found.into_iter().flatten().count(), 1);
    assert_eq!(view.many([""; 0]).await.unwrap(), []);
    assert_eq!(view.rows().of([]).await.unwrap().rows, []);
    assert_eq!(view.rows().of([]).as_of(1).await.unwrap().rows, []);
    db.stop().await;
}

pub(crate) async fn named_keys_come_in_pages_now_and_in_the_past() {
    let store = store().await;
    let db = program(&store).await;
    let mut last = None;
    for name in ["a", "b", "c"] {
        last = Some(happens(&db, name, deposited(1)).await);
    }
    let view = db.view::<Balance>();
    view.wait_for(&last.unwrap(), TIMEOUT).await.unwrap();
    let names = ["c", "nobody", "a", "b", "a"].map(str::to_owned);
    for limit in [1, 2, 3, 4] {
        for is_past in [false, true] {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let mut rows = view.rows().of(names.clone()).limit(limit).after(after);
                if is_past {
                    rows = rows.as_of(3);
                }
                let page = rows.await.unwrap();
                assert!(page.rows.len() <= limit, "{limit}, in the past: {is_past}");
                found.extend(page.rows.into_iter().map(|row| row.key));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, ["a", "b", "c"], "{limit}, in the past: {is_past}");
        }
    }
    db.stop().await;
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "other", crate = "annals_core")]
enum OtherEvent {
    Happened,
}

/// The same view as two programs declare it: with its types in another order, one of them twice.
macro_rules! counted {
    ($name:ident, $($events:ident),+) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        struct $name {
            events: u64,
        }

        impl View for $name {
            const NAME: &'static str = "counted";
            type Key = String;

            fn handlers() -> Handlers<Self> {
                Handlers::new()$(.on::<$events>())+
            }
        }

        impl Project<AccountEvent> for $name {
            fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
                row.events += 1;
                Ok(())
            }
        }

        impl Project<OtherEvent> for $name {
            fn on(row: &mut Row<'_, Self>, _: &Recorded<OtherEvent>) -> Result<(), Poison> {
                row.events += 1;
                Ok(())
            }
        }
    };
}

counted!(One, AccountEvent, OtherEvent);
counted!(Other, OtherEvent, AccountEvent, OtherEvent);

pub(crate) async fn the_order_of_a_views_types_is_no_other_view() {
    let store = store().await;
    let one = ViewSetup::<One>::new().options(options());
    let db = Annals::on(store.handle()).with(one).start().await.unwrap();
    let done = happens(&db, "alice", deposited(1)).await;
    db.view::<One>().wait_for(&done, TIMEOUT).await.unwrap();
    db.stop().await;
    let before = store.views().generations("counted").await.unwrap();

    let other = ViewSetup::<Other>::new().options(options());
    let db = Annals::on(store.handle())
        .with(other)
        .start()
        .await
        .unwrap();
    let done = happens(&db, "alice", deposited(1)).await;
    let row = db
        .view::<Other>()
        .get("alice")
        .at_least(&done)
        .await
        .unwrap();
    assert_eq!(row, Some(Other { events: 2 }));
    db.stop().await;
    let after = store.views().generations("counted").await.unwrap();
    assert_eq!((before.len(), &before[0].id), (1, &after[0].id));
    assert_eq!(after.len(), 1);
}

pub(crate) async fn an_empty_stream_name_part_is_no_key() {
    let store = store().await;
    let db = program(&store).await;
    // A stream of the category without an id has events, and no account.
    let stream = StreamId::new("account").unwrap();
    let event = annals_core::NewEvent::of(&deposited(1)).unwrap();
    let append = annals_core::Append::new(stream, [event]);
    store.append(append).await.unwrap();
    let done = happens(&db, "bob", deposited(2)).await;
    let view = db.view::<Balance>();
    let row = view.get("bob").at_least(&done).await.unwrap();
    assert_eq!(
        row,
        Some(Balance {
            cents: 2,
            events: 1
        })
    );
    db.stop().await;
}
