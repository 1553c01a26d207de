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
use crate::lesson;

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
