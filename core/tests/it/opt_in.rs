//! A sign-up is confirmed by a token: known, for this address, not used, not old.

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{Annals, CommandError, Emit, Fold, Query, Recorded, Tag};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::store::{at_a_held_clock, given, since};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "sign_up", crate = "annals_core")]
enum SignUpEvent {
    Initiated {
        #[event(tag)]
        email: String,
        #[event(tag)]
        token: String,
        name: String,
    },
    Confirmed {
        #[event(tag)]
        email: String,
        #[event(tag)]
        token: String,
        name: String,
    },
}

use SignUpEvent::{Confirmed, Initiated};

/// What is known of one token for one address.
#[derive(Debug, Default)]
struct SignUp {
    initiated: Option<(String, DateTime<Utc>)>,
    used: bool,
}

impl Fold for SignUp {
    type Event = SignUpEvent;

    fn apply(&mut self, event: &Recorded<SignUpEvent>) {
        match &**event {
            Initiated { name, .. } => {
                self.initiated = Some((name.clone(), event.record.occurred_at));
            }
            Confirmed { .. } => self.used = true,
        }
    }
}

async fn confirm(db: &Annals, email: &str, token: &str) -> Result<(), CommandError<&'static str>> {
    let now = db.clock().now();
    let decide = |sign_up: &SignUp| match &sign_up.initiated {
        None => Err("no such token for this address"),
        Some(_) if sign_up.used => Err("the token was used"),
        Some((_, then)) if now - *then > TimeDelta::minutes(60) => Err("the token is too old"),
        Some((name, _)) => {
            let email = email.to_owned();
            let token = token.to_owned();
            let name = name.clone();
            Ok(Emit::to(
                format!("sign_up-{token}"),
                Confirmed { email, token, name },
            ))
        }
    };
    let tags = [
        Tag::new("email", email).unwrap(),
        Tag::new("token", token).unwrap(),
    ];
    db.decide(SignUp::over(Query::tagged(tags)), decide)
        .await
        .map(|_| ())
}

fn initiated() -> SignUpEvent {
    Initiated {
        email: "ada@example.org".into(),
        token: "444444".into(),
        name: "Ada".into(),
    }
}

fn confirmed() -> SignUpEvent {
    Confirmed {
        email: "ada@example.org".into(),
        token: "444444".into(),
        name: "Ada".into(),
    }
}

async fn check(
    history: &[SignUpEvent],
    minutes: i64,
    email: &str,
    token: &str,
    expected: Result<(), &str>,
) {
    let (db, clock) = at_a_held_clock();
    given(&db, "sign_up-444444", history.iter().cloned()).await;
    clock.advance(TimeDelta::minutes(minutes));
    let outcome = confirm(&db, email, token)
        .await
        .map_err(|error| error.to_string());
    assert_eq!(
        outcome,
        expected.map_err(str::to_owned),
        "{email} {token} after {minutes} minutes"
    );
    let then: Vec<SignUpEvent> = since(&db, history.len() as u64).await;
    assert_eq!(
        then,
        if expected.is_ok() {
            vec![confirmed()]
        } else {
            vec![]
        }
    );
}

#[tokio::test]
async fn a_token_confirms_its_address_once_and_within_the_hour() {
    let ada = "ada@example.org";
    let token = "444444";
    check(&[], 0, ada, token, Err("no such token for this address")).await;
    check(
        &[initiated()],
        0,
        ada,
        "000000",
        Err("no such token for this address"),
    )
    .await;
    check(
        &[initiated()],
        0,
        "eve@example.org",
        token,
        Err("no such token for this address"),
    )
    .await;
    check(
        &[initiated(), confirmed()],
        1,
        ada,
        token,
        Err("the token was used"),
    )
    .await;
    check(&[initiated()], 61, ada, token, Err("the token is too old")).await;
    check(&[initiated()], 60, ada, token, Ok(())).await;
    check(&[initiated()], 0, ada, token, Ok(())).await;
}
