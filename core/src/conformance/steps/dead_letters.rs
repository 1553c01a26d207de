//! Dead letters of steps, and what operators decide of them.

use super::super::Fixture;
use super::super::view_words::*;
use super::super::words::*;
use crate::event::EventId;
use crate::position::Partition;
use crate::stream::Version;
use crate::stream_state::{ChangeStream, StreamChange};
use crate::{DeadLetter, SkipDecision};

pub async fn keep_dead_letters_in_order_and_settle_them(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    let mut step = worker.step(300);
    let mut all = vec![
        dead_letters("B", 7, Some("ä 'reason'\nwith lines"), 1),
        dead_letters("a", 2, Some(""), u32::MAX),
        dead_letters("a", 9, None, 0),
        dead_letters("a", 10, None, 0),
        dead_letters("a", 256, None, 0),
        dead_letters("ab", 1, None, 0),
        dead_letters("ä", 3, None, 0),
    ];
    step.dead_letters = all.iter().rev().cloned().collect();
    worker.take(views, step).await;
    for limit in [1, 2, 3, 7, 100] {
        let mut found = Vec::new();
        let mut after = None::<DeadLetter>;
        loop {
            let place = after
                .as_ref()
                .map(|last| (last.key.as_str(), last.partition, last.position));
            let page = views.dead_letters(worker.id(), place, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            assert_ne!(Some(last), after.as_ref(), "a page that gets nowhere");
            after = Some(last.clone());
            found.extend(page);
        }
        assert_eq!(found, all, "by {limit}");
    }
    // Tried again in vain, settled, and never a dead letter.
    all[1] = DeadLetter {
        reason: Some("another".into()),
        attempts: 2,
        dead_since: recorded(5),
        ..all[1].clone()
    };
    let mut step = worker.step(300);
    step.dead_letters = vec![all[1].clone()];
    step.settled_letters = vec![
        ("a".into(), at(9)),
        ("missing".into(), at(1)),
        ("ab".into(), at(2)),
        ("b".into(), at(7)),
    ];
    worker.take(views, step).await;
    all.remove(2);
    let store = reopen(fixture, store).await;
    assert_eq!(
        super::super::view_words::views(&*store)
            .dead_letters(worker.id(), None, 100)
            .await
            .unwrap(),
        all
    );
}

pub async fn forget_the_reason_of_what_is_archived(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let of = stream("account-1");
    let other = stream("account-2");
    let removed = append(&*store, &of, events(3)).await;
    let kept = append(&*store, &other, events(1)).await;
    let places = removed.events().iter().chain(kept.events());
    // In every generation, of this version and of others.
    let mut workers = Vec::new();
    for version in [1, 2] {
        let mut spec = spec("accounts", &[]);
        spec.version = version;
        let worker = Worker::begin(views, spec).await;
        let mut step = worker.step(9);
        step.dead_letters = places
            .clone()
            .map(|placed| DeadLetter {
                event: placed.id,
                ..dead_letters(
                    placed.stream.as_str(),
                    placed.position.get(),
                    Some("said Alice Smith"),
                    1,
                )
            })
            .collect();
        step.dead_letters.push(dead_letters("zoe", 9, None, 0));
        views.commit_view(step).await.unwrap();
        workers.push(worker);
    }
    let before = Version::new(3);
    let archive = ChangeStream::new(&of, StreamChange::Archive { before });
    store.change_stream(archive).await.unwrap();
    for worker in &workers {
        let letters = views.dead_letters(worker.id(), None, 9).await.unwrap();
        let causes: Vec<_> = letters
            .iter()
            .map(|letter| letter.reason.as_deref())
            .collect();
        let said = Some("said Alice Smith");
        let gone = Some(DeadLetter::ARCHIVED);
        assert_eq!(causes, [gone, gone, said, said, None]);
        assert_eq!(letters[0].attempts, 1);
    }
}

pub async fn find_what_operators_decided(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let skip_decision =
        |view: &str, partition, position, key: Option<&str>, reason: &str| SkipDecision {
            view: view.into(),
            partition: Partition(partition),
            position: at(position),
            event: EventId::random(),
            key: key.map(Into::into),
            reason: reason.into(),
            decided_at: recorded(position),
        };
    // One event may be skipped for some of its keys, or for all; the empty text is a key.
    let places = [
        (0, 9, None),
        (0, 10, Some("")),
        (0, 10, Some("ä")),
        (0, 256, None),
        (0, 256, Some("")),
        (1, 1, None),
    ];
    let mut kept =
        places.map(|(of, position, key)| skip_decision("a", of, position, key, "ä 'reason'"));
    let others = [
        skip_decision("A", 0, 9, None, "other"),
        skip_decision("a2", 0, 9, None, "other"),
    ];
    for skip_decision in kept.iter().rev().chain(&others) {
        views(&*store)
            .save_skip_decision(skip_decision.clone())
            .await
            .unwrap();
    }
    assert_eq!(views(&*store).skip_decisions("a").await.unwrap(), kept);
    kept[1] = SkipDecision {
        decided_at: recorded(99),
        ..skip_decision("a", 0, 10, Some(""), "decided again")
    };
    views(&*store)
        .save_skip_decision(kept[1].clone())
        .await
        .unwrap();
    let store = reopen(fixture, store).await;
    assert_eq!(views(&*store).skip_decisions("a").await.unwrap(), kept);
    assert_eq!(views(&*store).skip_decisions("a2").await.unwrap().len(), 1);
    assert_eq!(views(&*store).skip_decisions("missing").await.unwrap(), []);
}
