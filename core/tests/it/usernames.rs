//! Unique usernames, without a table: claimed by a registration, free again when the account closes
//! or is renamed.

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{Annals, CommandError, Emit, Fold, Query, Recorded, Tag};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::store::{at_a_held_clock, given, processes, since};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "user", crate = "annals_core")]
enum UserEvent {
    Registered {
        #[event(tag)]
        username: String,
    },
    Closed {
        #[event(tag)]
        username: String,
    },
    Renamed {
        #[event(tag = "username")]
        from: String,
        #[event(tag = "username")]
        to: String,
    },
}

use UserEvent::{Closed, Registered, Renamed};

fn registered(name: &str) -> UserEvent {
    Registered {
        username: name.into(),
    }
}

fn closed(name: &str) -> UserEvent {
    Closed {
        username: name.into(),
    }
}

fn renamed(from: &str, to: &str) -> UserEvent {
    Renamed {
        from: from.into(),
        to: to.into(),
    }
}

/// Who held which of the names that were asked about, and since when they are free again.
#[derive(Debug, Default)]
struct Names(Vec<(String, Option<DateTime<Utc>>)>);

impl Names {
    fn set(&mut self, name: &str, free_since: Option<DateTime<Utc>>) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.into(), free_since));
    }

    fn is_claimed(&self, name: &str, now: DateTime<Utc>, retention: TimeDelta) -> bool {
        self.0.iter().any(|(other, free_since)| {
            other == name && free_since.is_none_or(|since| now - since <= retention)
        })
    }
}

impl Fold for Names {
    type Event = UserEvent;

    fn apply(&mut self, event: &Recorded<UserEvent>) {
        let then = Some(event.record.occurred_at);
        match &**event {
            Registered { username } => self.set(username, None),
            Closed { username } => self.set(username, then),
            Renamed { from, to } => {
                self.set(from, then);
                self.set(to, None);
            }
        }
    }
}

async fn register(
    db: &Annals,
    name: &str,
    retention: TimeDelta,
) -> Result<(), CommandError<String>> {
    let now = db.clock().now();
    let claim = |names: &Names| match names.is_claimed(name, now, retention) {
        true => Err(format!("{name} is claimed")),
        false => Ok(Emit::to(format!("user-{name}"), registered(name))),
    };
    let names = Names::over(Query::tagged([Tag::new("username", name).unwrap()]));
    db.decide(names, claim).await.map(|_| ())
}

async fn check(
    history: &[UserEvent],
    days_since: i64,
    retention_days: i64,
    name: &str,
    expected: Result<(), &str>,
) {
    // A day starts a moment after the event, so that "three days ago" has begun and is not over.
    let (db, clock) = at_a_held_clock();
    given(&db, "user-given", history.iter().cloned()).await;
    let before = history.len() as u64;
    clock.advance(TimeDelta::days(days_since));
    let outcome = register(&db, name, TimeDelta::days(retention_days))
        .await
        .map_err(|error| error.to_string());
    assert_eq!(
        outcome,
        expected.map_err(str::to_owned),
        "{name} after {history:?}, {days_since} days ago"
    );
    let then: Vec<UserEvent> = since(&db, before).await;
    assert_eq!(
        then,
        if expected.is_ok() {
            vec![registered(name)]
        } else {
            vec![]
        }
    );
}

#[tokio::test]
async fn a_name_is_claimed_by_one_account_at_a_time() {
    // Nothing is kept once it is free: a negative retention.
    let claimed = Err("u1 is claimed");
    check(&[registered("u1")], 0, -1, "u1", claimed).await;
    check(&[registered("u2")], 0, -1, "u1", Ok(())).await;
    check(&[], 0, -1, "u1", Ok(())).await;
    check(&[registered("u1"), closed("u1")], 0, -1, "u1", Ok(())).await;
    check(
        &[registered("u1"), renamed("u1", "u1changed")],
        0,
        -1,
        "u1",
        Ok(()),
    )
    .await;
    check(
        &[registered("u2"), renamed("u2", "u1")],
        0,
        -1,
        "u1",
        claimed,
    )
    .await;
    check(
        &[registered("u2"), renamed("u2", "u1"), renamed("u1", "u3")],
        0,
        -1,
        "u1",
        Ok(()),
    )
    .await;
    check(
        &[registered("u1"), closed("u1"), registered("u1")],
        0,
        -1,
        "u1",
        claimed,
    )
    .await;
}

#[tokio::test]
async fn a_name_stays_claimed_three_days_after_its_account_closed() {
    for (history, name) in [
        (vec![registered("u1"), closed("u1")], "u1"),
        (vec![registered("u1"), renamed("u1", "u2")], "u1"),
    ] {
        check(&history, 3, 3, name, Err("u1 is claimed")).await;
        check(&history, 4, 3, name, Ok(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_claims_of_a_name_one_succeeds() {
    let handles: [_; 2] = processes();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let db = handles[task % 2].clone();
            tokio::spawn(async move { register(&db, "u1", TimeDelta::zero()).await.is_ok() })
        })
        .collect();
    let mut got = 0;
    for task in tasks {
        got += usize::from(task.await.unwrap());
    }
    assert_eq!(
        (got, since::<UserEvent>(&handles[0], 0).await),
        (1, vec![registered("u1")])
    );
}
