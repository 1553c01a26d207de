//! The rules find what was made up for them, and the lessons' payments get the lessons' alerts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals::MemoryStore;
use annals::pipeline::Pipeline;
use annals::prelude::*;
use tempfile::TempDir;

use crate::afternoon::{Outcome, run};
use crate::bank::Verdict;
use crate::ended::what_went_wrong;
use crate::{afternoon as told, files, lesson};

async fn afternoon(slots: u16) -> Outcome {
    let mut last = BTreeMap::new();
    let outcome = run(Arc::new(MemoryStore::new()), slots, |alert| {
        let stream = alert.record.stream.to_string();
        last.insert(stream, alert.record.version);
    });
    let outcome = outcome.await.unwrap();
    let all: u64 = last.values().map(|version| version.get()).sum();
    assert_eq!(all as usize, outcome.rules.values().sum::<usize>());
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_finds_who_it_is_about() {
    let one = afternoon(1).await;
    let named = |users: &[&str], verdict: Verdict| {
        let found = one.verdicts.get(&verdict).cloned().unwrap_or_default();
        for user in users {
            assert!(
                found.contains(&(*user).to_owned()),
                "{verdict:?}: {found:?}"
            );
        }
    };
    named(&["eve", "trudy", "peggy"], Verdict::Block);
    named(&["mallory", "oscar", "walter"], Verdict::Review);
    assert_eq!(one.blocked, one.verdicts[&Verdict::Block]);
    assert_eq!(one.rules.len(), 8, "{:?}", one.rules);
    assert_eq!(afternoon(4).await, one);
}

fn lessons() -> PathBuf {
    let copies = concat!(env!("CARGO_MANIFEST_DIR"), "/streams/tests/data/lessons");
    std::env::var_os("ANNALS_LESSONS").map_or(copies.into(), PathBuf::from)
}

/// The alerts for a file, judged and judged once more in a rebuild.
async fn alerts(payments: &Path, slots: u16) -> String {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("alerts.csv");
    let db = Annals::on(Arc::new(MemoryStore::new()));
    lesson::import(&**db.store(), payments).await.unwrap();
    let pipeline: Pipeline = lesson::judge().slots(slots);
    let db = db.with(pipeline).start().await.unwrap();
    lesson::judged(&db).await.unwrap();
    let rebuild = db.pipeline("judge").unwrap().rebuild();
    let running = rebuild.begin().await.unwrap();
    running.finished(|_| ()).await.unwrap();
    lesson::judged(&db).await.unwrap();
    // A run that was stopped after its payments were recorded is begun again.
    lesson::import(&**db.store(), payments).await.unwrap();
    lesson::judged(&db).await.unwrap();
    lesson::export(&**db.store(), &out).await.unwrap();
    db.stop().await;
    std::fs::read_to_string(out).unwrap()
}

/// The rows of a file as they become known within 20 seconds, each tenth of them twice.
fn shuffled(text: &str) -> String {
    let mut state = 17_u64;
    let mut below = |limit: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(12_345);
        (state >> 33) % limit
    };
    let mut lines = text.lines();
    let head = lines.next().unwrap();
    let mut rows = Vec::new();
    for (number, line) in lines.enumerate() {
        let at: u64 = line.split(',').nth(2).unwrap().parse().unwrap();
        for _ in 0..if number % 10 == 0 { 2 } else { 1 } {
            rows.push((at + below(20_000_000), line));
        }
    }
    rows.sort();
    let rows = rows.into_iter().map(|(_, line)| line);
    std::iter::once(head)
        .chain(rows)
        .map(|line| format!("{line}\n"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payments_of_the_lesson_get_its_alerts() {
    let payments = lessons().join("fraud-transactions.csv");
    let wanted = std::fs::read_to_string(lessons().join("fraud-alerts.csv")).unwrap();
    assert!(wanted.lines().count() > 1);
    assert_eq!(alerts(&payments, 1).await, wanted);
    let directory = TempDir::new().unwrap();
    let disordered = directory.path().join("disordered.csv");
    let text = std::fs::read_to_string(payments).unwrap();
    std::fs::write(&disordered, shuffled(&text)).unwrap();
    for slots in [1, 4] {
        assert_eq!(alerts(&disordered, slots).await, wanted, "{slots} slots");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_may_come_in_any_order() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("payments.csv");
    std::fs::write(&file, "cents,at,user,id\n100001,5,u,p\n").unwrap();
    let one = "id,user,count_5m,cents_5m,rules\np,u,1,100001,total\n";
    assert_eq!(alerts(&file, 1).await, one);
    // The amounts of a window may be more than fits into one.
    let most = i64::MAX;
    let text = format!("id,user,at,cents\na,u,5,{most}\nb,u,6,{most}\n");
    std::fs::write(&file, text).unwrap();
    let alerts = alerts(&file, 1).await;
    let second = format!("b,u,2,{},total\n", 2 * i128::from(most));
    assert!(alerts.ends_with(&second), "{alerts}");
    std::fs::write(&file, "id,user,at,cents\n").unwrap();
    let none = self::alerts(&file, 1).await;
    assert_eq!(none, "id,user,count_5m,cents_5m,rules\n");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_one_clear_line() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("payments.csv");
    for (text, wanted) in [
        (
            "id,user,at,cents,colour\n",
            "unknown column `colour`; known are id, user, at, cents",
        ),
        ("", "there is no column `id`"),
        ("id,user,at\n", "there is no column `cents`"),
        ("id,user,at,cents,id\n", "there are two columns `id`"),
        (
            "id,user,at,cents\na,b,1,2\na,b,soon,2\n",
            "line 3: `soon` in column `at` is no integer",
        ),
        ("id,user,at,cents\na,b,1,2,3\n", "payments.csv: CSV error"),
        (
            "id,user,at,cents\na,,1,2\n",
            "line 2: the id or the user is empty",
        ),
        (
            "id,user,at,cents\na,b,9223372036854775807,2\n",
            "line 2: 9223372036854775807 µs is no time",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let store = MemoryStore::new();
        let refused = lesson::import(&store, &file).await.unwrap_err().to_string();
        assert!(refused.contains(wanted), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
    let missing = lesson::import(&MemoryStore::new(), Path::new("none.csv")).await;
    let missing = missing.unwrap_err().to_string();
    assert!(missing.starts_with("cannot open none.csv: "), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_filled_takes_no_other_file() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str, rows: &[&str]| {
        let path = directory.path().join(name);
        let rows = rows.join("\n");
        std::fs::write(&path, format!("id,user,at,cents\n{rows}\n")).unwrap();
        path
    };
    let one = file("one.csv", &["a,ann,1000000,5", "b,bob,2000000,5"]);
    let shorter = file("shorter.csv", &["a,ann,1000000,5"]);
    let other = file("other.csv", &["a,ann,1000000,5", "b,bob,2000000,7"]);
    let row = ["a,ann,1000000,5", "b,bob,2000000,5", "c,bob,3000000,5"];
    let longer = file("longer.csv", &row);
    let store = Arc::new(MemoryStore::new());
    let db = Annals::on(Arc::<MemoryStore>::clone(&store));
    let imported = async |path: &Path| {
        let done = lesson::import(&**db.store(), path).await;
        done.map_err(|error| error.to_string())
    };
    assert_eq!(imported(&one).await, Ok(2));
    assert_eq!(imported(&one).await, Ok(2));
    for (path, what) in [
        (&other, "line 3 is not payment `b`"),
        (&shorter, "1 payments, and the store holds 2"),
    ] {
        let error = imported(path).await.unwrap_err();
        assert!(
            error.contains(what) && error.contains("another file"),
            "{error}"
        );
    }
    // An import that was broken off goes on.
    assert_eq!(imported(&longer).await, Ok(3));
    let longest = file("longest.csv", &[&row[..], &["d,bob,4000000,5"]].concat());
    let program = Annals::on(store).with(lesson::judge()).start().await;
    let program = program.unwrap();
    lesson::judged(&program).await.unwrap();
    program.stop().await;
    assert_eq!(imported(&longer).await, Ok(3));
    let error = imported(&longest).await.unwrap_err();
    assert!(
        error.contains("the store is done, without line 5"),
        "{error}"
    );
}

#[test]
fn alerts_are_written_over_nothing_that_is_read() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("payments.csv"), "id,user,at,cents\n").unwrap();
    std::fs::write(path("log.db"), "").unwrap();
    std::fs::hard_link(path("payments.csv"), path("same.csv")).unwrap();
    let around = directory.path().join(".").join("payments.csv");
    let store = format!("sqlite:{}", path("log.db").display());
    let of = |alerts: &Path| files::all_differ(&path("payments.csv"), alerts, &store);
    assert_eq!(of(&path("alerts.csv")), Ok(()));
    for alerts in [path("payments.csv"), path("same.csv"), around] {
        assert!(of(&alerts).unwrap_err().contains("holds the payments"));
    }
    assert!(of(&path("log.db")).unwrap_err().contains("is the store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_ends_the_afternoon_quietly() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    let told = told::tell(1, &mut writer).await;
    assert!(told.is_err(), "it was not noticed");
    assert!(what_went_wrong(told).is_none());
}
