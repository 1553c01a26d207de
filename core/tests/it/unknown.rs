//! The answer was lost: asked again with the same ids until it is known, and nothing else is
//! claimed.

use annals_core::conformance::faulty::{AnswerLost, Call, StoreFault};
use annals_core::{Aggregate, Annals, CommandError, Committed, Failure, StoreError};
use async_trait::async_trait;

use crate::bank::{Account, Refusal, transfer};
use crate::queries::{Total, total};
use crate::store::{alice, faulty, head, impatient, processes};

async fn deposit(db: &Annals, how: &str) -> Result<Committed, CommandError<Refusal>> {
    match how {
        "run" => alice(db).run(|a| a.deposit(10)).await,
        "run with a key" => alice(db).run(|a| a.deposit(10)).idempotency_key("k").await,
        "decide over aggregates" => {
            let both = (Account::at("alice"), Account::at("bob"));
            db.decide(both, |(a, b)| transfer(a, b, 0)).await
        }
        _ => {
            let query = (Account::at("alice"), total());
            db.decide(query, |(a, Total { .. })| Ok((a.deposit(10)?, ())))
                .await
        }
    }
}

const WAYS: [&str; 4] = [
    "run",
    "run with a key",
    "decide over aggregates",
    "decide over a query",
];

#[tokio::test]
async fn after_a_lost_answer_the_command_takes_effect_once() {
    for how in WAYS {
        let [plain] = processes();
        let (db, store) = faulty(&plain, AnswerLost::next(3));
        let db = db.with_retries(impatient(5));
        let done = deposit(&db, how).await.unwrap();
        assert_eq!(
            (head(&plain).await, store.fault().left()),
            (done.events().len() as u64, 0),
            "{how}"
        );
        // What no other caller can have done was done now; of a request that is unknown.
        assert_eq!(done.was_repeated(), how == "run with a key", "{how}");
        // The state that is held is right.
        assert_eq!(
            alice(&db).query(Account::clone).await.unwrap(),
            *alice(&plain).load().await.unwrap(),
            "{how}"
        );
        store.fault().lose_next(1);
        alice(&db).run(|a| a.deposit(5)).await.unwrap();
        assert_eq!(
            alice(&db).query(Account::clone).await.unwrap(),
            *alice(&plain).load().await.unwrap(),
            "{how}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_an_unknown_outcome() {
    for how in WAYS {
        let [plain] = processes();
        let (db, store) = faulty(&plain, AnswerLost::next(1_000));
        let db = db.with_retries(impatient(4));
        let error = deposit(&db, how).await.unwrap_err();
        assert!(matches!(error, CommandError::Unknown(_)), "{how}: {error}");
        assert_eq!(store.fault().left(), 996, "{how}");
    }
}

/// After the commit the connection is gone, and the server cannot be asked any more.
#[derive(Debug, Default)]
struct GoneForGood(std::sync::atomic::AtomicBool);

#[async_trait]
impl StoreFault for GoneForGood {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        let gone = self.0.load(std::sync::atomic::Ordering::SeqCst) && (call == Call::Append);
        if gone {
            Err(StoreError::new(Failure::Unavailable, "connection refused"))
        } else {
            Ok(())
        }
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        if !(call == Call::Append) {
            return Ok(());
        }
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        Err(StoreError::new(Failure::Unavailable, "connection reset"))
    }
}

#[tokio::test]
async fn a_lost_answer_of_an_unreachable_store_is_no_failure() {
    for how in WAYS {
        let [plain] = processes();
        let db = faulty(&plain, GoneForGood::default())
            .0
            .with_retries(impatient(3));
        let error = deposit(&db, how).await.unwrap_err();
        let CommandError::Unknown(lost) = &error else {
            panic!("{how}: {error}")
        };
        assert_eq!(lost.to_string(), "connection reset", "{how}");
        assert!(head(&plain).await > 0, "{how}: it did take effect");
    }
}

#[tokio::test]
async fn the_text_of_an_error_has_its_cause() {
    let error = annals_core::StoreError::new(annals_core::Failure::Unavailable, "cannot write");
    let error = CommandError::<String>::Unknown(error.because("connection reset by peer"));
    assert_eq!(
        error.to_string(),
        "the outcome of the command is unknown: cannot write: connection reset by peer"
    );
}
