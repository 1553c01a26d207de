//! What a view was: versions of rows by position, what touched them, and what was forgotten.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::view_words::*;
use super::words::*;
use super::{Dice, Fixture};
use crate::position::Position;
use crate::store::Store;
use crate::{CommitError, GenerationId, History, PastRow, RowVersion, ViewStore};

const ALL: (Position, Position) = (Position::START, Position::MAX);

/// One step that says what rows were; the rows themselves are set as the newest version says.
async fn remember(
    views: &dyn ViewStore,
    worker: &mut Worker,
    to: u64,
    versions: impl IntoIterator<Item = RowVersion>,
) {
    let mut step = worker.step(to);
    step.versions = versions.into_iter().collect();
    let newest: BTreeMap<&str, &RowVersion> = step
        .versions
        .iter()
        .map(|version| (version.key.as_str(), version))
        .collect();
    step.rows = newest
        .into_iter()
        .map(|(key, version)| {
            version
                .value
                .as_ref()
                .map_or_else(|| removed(key), |value| set(key, value.clone(), &[]))
        })
        .collect();
    worker.take(views, step).await;
}

pub async fn is_known_before_at_inside_and_after_each_run(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &[])).await;
    let one = row_version("k", 2, 5, Some("1"));
    let two = row_version("k", 5, 9, Some("2"));
    let three = row_version("k", 12, 13, None);
    let later = row_version("k", 20, 30, Some("4"));
    remember(
        views(&*store),
        &mut worker,
        5,
        [one.clone(), row_version("other", 0, 5, Some("x"))],
    )
    .await;
    remember(
        views(&*store),
        &mut worker,
        15,
        [two.clone(), three.clone()],
    )
    .await;
    remember(
        views(&*store),
        &mut worker,
        30,
        [row_version("K", 20, 30, None), later.clone()],
    )
    .await;
    let rows: [(u64, Option<&RowVersion>, Option<u64>); 18] = [
        (0, None, None),
        (2, None, None),
        (3, None, Some(2)),
        (4, None, Some(2)),
        (5, Some(&one), None),
        (6, Some(&one), Some(5)),
        (8, Some(&one), Some(5)),
        (9, Some(&two), None),
        (10, Some(&two), None),
        (12, Some(&two), None),
        (13, Some(&three), None),
        (15, Some(&three), None),
        (20, Some(&three), None),
        (21, Some(&three), Some(20)),
        (29, Some(&three), Some(20)),
        (30, Some(&later), None),
        (31, Some(&later), None),
        (u64::MAX, Some(&later), None),
    ];
    for _ in 0..2 {
        for (moment, base, refold_after) in rows {
            let expected = PastRow {
                key: "k".into(),
                base: base.cloned(),
                refold_after: refold_after.map(at),
            };
            assert_eq!(
                past(views(&*store), worker.id(), "k", moment).await,
                Some(expected),
                "just after {moment}"
            );
        }
        for key in ["", "k2", "kk", "missing"] {
            assert_eq!(
                past(views(&*store), worker.id(), key, 30).await,
                None,
                "of `{key}` nothing is known"
            );
        }
        let asked = ["other", "k", "missing", "K", "other"].map(str::to_owned);
        let found = views(&*store)
            .read_past(worker.id(), &asked, at(9))
            .await
            .unwrap();
        assert_eq!(
            found.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(),
            ["K", "k", "other"]
        );
        assert_eq!(
            views(&*store)
                .read_past(worker.id(), &[], at(9))
                .await
                .unwrap(),
            []
        );
        store = reopen(fixture, store).await;
    }
    let many: Vec<String> = (0..3_000)
        .map(|n| format!("missing-{n}"))
        .chain(["k".into()])
        .collect();
    assert_eq!(
        views(&*store)
            .read_past(worker.id(), &many, at(9))
            .await
            .unwrap()
            .len(),
        1
    );
}

pub async fn of_rows_keeps_values_and_times_exactly(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &[])).await;
    let noise: Vec<u8> = (0..10_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let values = [Some(noise), Some(vec![]), None, Some(vec![0; 100])];
    let versions: Vec<RowVersion> = (1..)
        .zip(values)
        .map(|(n, value)| RowVersion {
            value: value.map(Into::into),
            ..row_version("ä\0'k", n - 1, n, None)
        })
        .collect();
    remember(views(&*store), &mut worker, 4, versions.clone()).await;
    let store = reopen(fixture, store).await;
    assert_eq!(
        views(&*store)
            .row_versions(worker.id(), "ä\0'k", ALL, 9)
            .await
            .unwrap(),
        versions
    );
    for (moment, version) in (1..).zip(&versions) {
        let found = past(views(&*store), worker.id(), "ä\0'k", moment)
            .await
            .unwrap();
        assert_eq!(found.base.as_ref(), Some(version));
    }
}

pub async fn has_the_versions_of_a_key_in_order(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    for to in [9, 10, 11, 100, 256] {
        let after = worker.at.get();
        remember(
            views,
            &mut worker,
            to,
            [
                row_version("k", after, to, Some("x")),
                row_version("k2", after, to, None),
            ],
        )
        .await;
    }
    let rows: [(u64, u64, usize, &[u64]); 10] = [
        (0, u64::MAX, 99, &[9, 10, 11, 100, 256]),
        (0, 10, 99, &[9, 10]),
        (9, 10, 99, &[10]),
        (10, 10, 99, &[]),
        (10, 9, 99, &[]),
        (8, 11, 2, &[9, 10]),
        (10, 256, 1, &[11]),
        (11, 255, 99, &[100]),
        (256, u64::MAX, 99, &[]),
        (0, 256, 0, &[]),
    ];
    for (after, up_to, limit, expected) in rows {
        let found = views
            .row_versions(worker.id(), "k", (at(after), at(up_to)), limit)
            .await
            .unwrap();
        assert!(found.iter().all(|version| version.key == "k"));
        let found: Vec<u64> = found.iter().map(|version| version.up_to.get()).collect();
        assert_eq!(found, expected, "({after}, {up_to}] limit {limit}");
    }
    assert_eq!(
        views
            .row_versions(worker.id(), "missing", ALL, 9)
            .await
            .unwrap(),
        []
    );
}

/// Reads keys page after page.
async fn paged(mut page: impl AsyncFnMut(Option<String>) -> Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let found = page(all.last().cloned()).await;
        if found.is_empty() {
            return all;
        }
        all.extend(found);
        assert!(
            all.is_sorted_by(|a, b| a < b),
            "not in order, or a page that gets nowhere: {all:?}"
        );
    }
}

pub async fn has_keys_that_are_or_were(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    remember(
        views,
        &mut worker,
        5,
        ["B", "a", "gone", "ä", ""].map(|key| row_version(key, 0, 5, Some("x"))),
    )
    .await;
    remember(views, &mut worker, 9, [row_version("gone", 5, 9, None)]).await;
    worker
        .change(views, [set("a", "y", &[]), set("row only", "y", &[])])
        .await;
    let all = ["", "B", "a", "gone", "row only", "ä"];
    let rows: [(Bound<&str>, Bound<&str>, &[&str]); 6] = [
        (Bound::Unbounded, Bound::Unbounded, &all),
        (Bound::Included("B"), Bound::Included("gone"), &all[1..4]),
        (Bound::Excluded("B"), Bound::Excluded("gone"), &all[2..3]),
        (Bound::Excluded(""), Bound::Unbounded, &all[1..]),
        (Bound::Included("z"), Bound::Excluded("b"), &[]),
        (Bound::Excluded("a"), Bound::Excluded("a"), &[]),
    ];
    for (from, to, expected) in rows {
        for limit in [1, 2, 5, 6, 7] {
            let found = paged(async |after| {
                let range = (from.map(str::to_owned), to.map(str::to_owned));
                views
                    .past_keys(worker.id(), range, after.as_deref(), limit)
                    .await
                    .unwrap()
            })
            .await;
            assert_eq!(found, expected, "{from:?} {to:?} by {limit}");
        }
    }
}

pub async fn tells_which_keys_changed_between_two_positions(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    remember(
        views,
        &mut worker,
        5,
        ["B", "a", "b", "ä"].map(|key| row_version(key, 0, 5, Some("x"))),
    )
    .await;
    remember(
        views,
        &mut worker,
        9,
        [
            row_version("a", 5, 7, Some("y")),
            row_version("a", 7, 9, None),
            row_version("c", 8, 9, Some("y")),
        ],
    )
    .await;
    worker.change(views, [set("row only", "y", &[])]).await;
    let rows: [(u64, u64, &[&str]); 8] = [
        (0, u64::MAX, &["B", "a", "b", "c", "ä"]),
        (0, 5, &["B", "a", "b", "ä"]),
        (4, 5, &["B", "a", "b", "ä"]),
        (5, 9, &["a", "c"]),
        (6, 8, &["a"]),
        (7, 8, &[]),
        (9, 99, &[]),
        (9, 5, &[]),
    ];
    for (after, up_to, expected) in rows {
        for limit in [1, 2, 99] {
            let found = paged(async |last| {
                let between = (at(after), at(up_to));
                views
                    .keys_changed_between(worker.id(), between, last.as_deref(), limit)
                    .await
                    .unwrap()
            })
            .await;
            assert_eq!(found, expected, "({after}, {up_to}] by {limit}");
        }
    }
}

pub async fn knows_what_touched_a_key(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), spec("a", &[])).await;
    for (to, touched) in [(99, vec![9, 3, 10]), (300, vec![256, 100, 9])] {
        let mut step = worker.step(to);
        step.touched = touched
            .iter()
            .map(|position| ("k".into(), at(*position)))
            .collect();
        step.touched
            .extend([("k2".into(), at(1)), ("ä".into(), at(to))]);
        worker.take(views(&*store), step).await;
    }
    let store = reopen(fixture, store).await;
    let rows: [(u64, u64, usize, &[u64]); 8] = [
        (0, u64::MAX, 99, &[3, 9, 10, 100, 256]),
        (3, 100, 99, &[9, 10, 100]),
        (0, 9, 99, &[3, 9]),
        (9, 9, 99, &[]),
        (10, 9, 99, &[]),
        (3, 256, 2, &[9, 10]),
        (256, u64::MAX, 99, &[]),
        (0, 99, 0, &[]),
    ];
    for (after, up_to, limit, expected) in rows {
        let found = views(&*store)
            .touched(worker.id(), "k", at(after), at(up_to), limit)
            .await
            .unwrap();
        assert_eq!(
            found,
            expected.iter().copied().map(at).collect::<Vec<_>>(),
            "({after}, {up_to}] limit {limit}"
        );
    }
    assert_eq!(
        views(&*store)
            .touched(worker.id(), "ä", at(0), at(999), 9)
            .await
            .unwrap(),
        [at(99), at(300)]
    );
    assert_eq!(
        views(&*store)
            .touched(worker.id(), "missing", at(0), at(999), 9)
            .await
            .unwrap(),
        []
    );
}

pub async fn that_is_forgotten_is_not_answered_and_the_rest_stays(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    for to in [5, 10, 15, 20] {
        let mut step = worker.step(to);
        step.versions = vec![row_version("k", to - 5, to, Some(&to.to_string()))];
        match to {
            5 => step.versions.extend([
                row_version("removed", 0, 5, Some("x")),
                row_version("old", 0, 5, Some("x")),
            ]),
            10 => step.versions.extend([
                row_version("removed", 5, 10, None),
                row_version("back", 5, 10, None),
            ]),
            20 => step.versions.extend([
                row_version("back", 15, 20, Some("x")),
                row_version("new", 15, 20, Some("x")),
            ]),
            _ => {}
        }
        step.touched = vec![("k".into(), at(to))];
        worker.take(views, step).await;
    }
    let id = worker.id();
    let keys = ["back", "k", "new", "old"].map(str::to_owned);
    let mut known = BTreeMap::new();
    for moment in 0..25 {
        known.insert(
            moment,
            views.read_past(id, &keys, at(moment)).await.unwrap(),
        );
    }
    for (since, kept) in [(0, 0), (12, 12), (4, 12), (12, 12)] {
        views.forget_history(id, at(since)).await.unwrap();
        let generation = views.generations("a").await.unwrap().remove(0);
        assert_eq!(generation.history_since, at(kept), "since {since}");
        for (moment, known) in &known {
            let answer = views.read_past(id, &keys, at(*moment)).await;
            if *moment < kept {
                let error = answer.unwrap_err();
                assert!(
                    matches!(error, CommitError::BeforeHistory { generation, moment: of, since }
                        if (generation, of, since) == (id, at(*moment), at(kept))),
                    "{error:?}"
                );
                continue;
            }
            // That a row was removed says no more than that there is none.
            let meaning = |row: &PastRow| {
                let base = row.base.clone().filter(|version| version.value.is_some());
                (row.key.clone(), base, row.refold_after)
            };
            let answer = answer.unwrap();
            assert_eq!(
                answer.iter().map(meaning).collect::<Vec<_>>(),
                known.iter().map(meaning).collect::<Vec<_>>(),
                "just after {moment}, forgotten before {kept}"
            );
        }
    }
    let ends = async |key: &str| -> Vec<u64> {
        let versions = views.row_versions(id, key, ALL, 9).await.unwrap();
        versions.iter().map(|version| version.up_to.get()).collect()
    };
    assert_eq!(
        (ends("k").await, ends("old").await),
        (vec![10, 15, 20], vec![5])
    );
    assert_eq!(
        (ends("removed").await, ends("back").await),
        (vec![], vec![20])
    );
    let all = (Bound::Unbounded, Bound::Unbounded);
    assert_eq!(views.past_keys(id, all, None, 9).await.unwrap(), keys);
    assert!(matches!(
        views
            .keys_changed_between(id, (at(11), at(20)), None, 9)
            .await,
        Err(CommitError::BeforeHistory { .. })
    ));
    assert_eq!(
        views
            .keys_changed_between(id, (at(12), at(20)), None, 9)
            .await
            .unwrap(),
        ["back", "k", "new"]
    );
    let touched = views.touched(id, "k", at(0), at(99), 9).await.unwrap();
    assert_eq!(
        touched,
        [5, 10, 15, 20].map(at),
        "event time is folded from the first event on"
    );
    // It goes on, also after reopening.
    let store = reopen(fixture, store).await;
    let views = super::view_words::views(&*store);
    remember(views, &mut worker, 25, [row_version("k", 20, 25, None)]).await;
    assert!(matches!(
        views.read_past(id, &keys, at(11)).await,
        Err(CommitError::BeforeHistory { .. })
    ));
    assert!(
        past(views, id, "k", 25)
            .await
            .is_some_and(|row| row.base == Some(row_version("k", 20, 25, None)))
    );
}

pub async fn of_a_view_that_keeps_none_is_never_answered(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let present = crate::GenerationSpec {
        history: History::None,
        ..spec("a", &[])
    };
    let mut worker = Worker::begin(views, present).await;
    worker.change(views, [set("k", "x", &[])]).await;
    for moment in [0, 1, 9] {
        let answer = views
            .read_past(worker.id(), &["k".into()], at(moment))
            .await;
        assert!(
            matches!(answer, Err(CommitError::BeforeHistory { .. })),
            "{answer:?}"
        );
    }
    views.forget_history(worker.id(), at(1)).await.unwrap();
    assert_eq!(
        views.generations("a").await.unwrap()[0].history_since,
        Position::MAX
    );
}

/// What happened, and what must be found: the value of a key is the list of the positions that
/// touched it since it was removed.
#[derive(Debug, Default)]
struct Model {
    // At `position - 1`: the key, and whether the event removed the row.
    events: Vec<(String, bool)>,
    forgotten: u64,
}

impl Model {
    /// The fold of the events of a key after `after`, up to `up_to`, onto `base`.
    fn fold(&self, key: &str, base: Option<String>, after: u64, up_to: u64) -> Option<String> {
        let events = (1..)
            .zip(&self.events)
            .filter(|(position, (of, _))| *position > after && *position <= up_to && of == key);
        events.fold(base, |row, (position, (_, removes))| {
            (!removes).then(|| format!("{}{position};", row.unwrap_or_default()))
        })
    }

    async fn check(&self, views: &dyn ViewStore, id: GenerationId, keys: &[String]) {
        let end = self.events.len() as u64;
        let rows = read_rows(views, crate::ReadRows::of(id, every_key())).await;
        let found: Vec<(String, String)> = rows
            .into_iter()
            .map(|row| (row.key, String::from_utf8(row.value.to_vec()).unwrap()))
            .collect();
        let expected: Vec<(String, String)> = keys
            .iter()
            .filter_map(|key| Some((key.clone(), self.fold(key, None, 0, end)?)))
            .collect();
        assert_eq!(found, expected, "the rows at {end}");
        for moment in 0..=end {
            let answer = views.read_past(id, keys, at(moment)).await;
            if moment < self.forgotten {
                assert!(
                    matches!(answer, Err(CommitError::BeforeHistory { .. })),
                    "{answer:?}"
                );
                continue;
            }
            let answer = answer.unwrap();
            for key in keys {
                let row = answer.iter().find(|row| row.key == *key);
                let base = row
                    .and_then(|row| row.base.clone())
                    .and_then(|version| version.value);
                let base = base.map(|value| String::from_utf8(value.to_vec()).unwrap());
                let found = match row.and_then(|row| row.refold_after) {
                    Some(after) => self.fold(key, base, after.get(), moment),
                    None => base,
                };
                assert_eq!(
                    found,
                    self.fold(key, None, 0, moment),
                    "`{key}` just after {moment} of {end}"
                );
            }
        }
    }
}

pub async fn equals_a_replay_at_every_position_of_a_random_history(fixture: &dyn Fixture) {
    let mut store: Arc<dyn Store> = open(fixture).await;
    for seed in 1..=6 {
        let mut dice = Dice::new(seed);
        let mut keys = ["B", "a", "a\0", "ab", "ä"].map(str::to_owned);
        keys.sort();
        let mut model = Model::default();
        let mut worker =
            Worker::begin(views(&*store), spec(&format!("view-{seed}"), &["value"])).await;
        for _ in 0..25 {
            let after = model.events.len() as u64;
            for _ in 0..dice.roll(5) {
                model
                    .events
                    .push((keys[dice.roll(5) as usize].clone(), dice.roll(4) == 0));
            }
            let end = model.events.len() as u64;
            let mut step = worker.step(end);
            for key in &keys {
                let touched = (1..)
                    .zip(&model.events)
                    .skip(after as usize)
                    .filter(|(_, (of, _))| of == key);
                let touched: Vec<u64> = touched.map(|(position, _)| position).collect();
                let (Some(first), Some(last)) = (touched.first(), touched.last()) else {
                    continue;
                };
                let value = model.fold(key, None, 0, end);
                step.rows.push(
                    value
                        .as_ref()
                        .map_or_else(|| removed(key), |value| set(key, value.clone(), &[value])),
                );
                // An interval may begin anywhere between the step's begin and the first event, and
                // end anywhere after the last.
                let begins = after + dice.roll(first - after);
                let ends = last + dice.roll(end - last + 1);
                step.versions
                    .push(row_version(key, begins, ends, value.as_deref()));
                step.touched.extend(
                    touched
                        .into_iter()
                        .map(|position| (key.clone(), at(position))),
                );
            }
            worker.take(views(&*store), step).await;
            if dice.roll(8) == 0 && end > 0 {
                model.forgotten = model.forgotten.max(dice.roll(end));
                views(&*store)
                    .forget_history(worker.id(), at(model.forgotten))
                    .await
                    .unwrap();
            }
            if dice.roll(12) == 0 {
                store = reopen(fixture, store).await;
            }
            if dice.roll(4) == 0 {
                model.check(views(&*store), worker.id(), &keys).await;
            }
        }
        model.check(views(&*store), worker.id(), &keys).await;
        for key in &keys {
            let found = views(&*store)
                .touched(worker.id(), key, at(0), Position::MAX, 1_000)
                .await
                .unwrap();
            let touched = (1..)
                .zip(&model.events)
                .filter(|(_, (of, _))| of == key)
                .map(|(position, _)| at(position));
            assert_eq!(found, touched.collect::<Vec<_>>());
        }
    }
}
