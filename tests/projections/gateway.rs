//! A gateway that a reactor sends messages to, shared by the tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::{Annals, Committed, Recorded};
use annals_projections::{Program, ReactError, Reactor, ReactorSetup, ReadModels, Request, With};
use tokio::sync::{Semaphore, watch};

use super::bank::AccountEvent;
use super::test_store::TestStore;

pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// What came out of the program: the account, the cents, and the idempotency key.
pub(super) type Message = (String, i64, String);

/// A gateway that remembers what it was given. It holds back deposits of the account `slow` until
/// it is let go, and refuses those of the accounts that it refuses.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    pub(super) sent: Arc<watch::Sender<Vec<Message>>>,
    pub(super) begun: Arc<watch::Sender<usize>>,
    pub(super) slow: Arc<Semaphore>,
    pub(super) refused: Arc<Mutex<BTreeMap<String, ReactError>>>,
}

impl Default for Gateway {
    fn default() -> Gateway {
        let slow = Arc::new(Semaphore::new(0));
        Gateway {
            sent: Arc::default(),
            begun: Arc::default(),
            slow,
            refused: Arc::default(),
        }
    }
}

impl Gateway {
    pub(super) async fn sends(&self, count: usize) -> Vec<Message> {
        let mut sent = self.sent.subscribe();
        tokio::time::timeout(TIMEOUT, sent.wait_for(|sent| sent.len() >= count))
            .await
            .unwrap()
            .unwrap()
            .clone()
    }

    pub(super) fn sent(&self) -> Vec<Message> {
        self.sent.borrow().clone()
    }

    pub(super) fn sent_to(&self, account: &str) -> Vec<i64> {
        self.sent
            .borrow()
            .iter()
            .filter(|(to, ..)| to == account)
            .map(|(_, cents, _)| *cents)
            .collect()
    }

    pub(super) fn refuse(&self, account: &str, error: ReactError) {
        self.refused.lock().unwrap().insert(account.into(), error);
    }

    pub(super) fn accept(&self, account: &str) {
        self.refused.lock().unwrap().remove(account);
    }
}

pub(super) struct Texts(pub(super) Gateway);

impl Reactor for Texts {
    const NAME: &'static str = "texts";
    type Event = AccountEvent;

    async fn react(
        &self,
        event: &Recorded<AccountEvent>,
        request: &Request,
    ) -> Result<(), ReactError> {
        let gateway = &self.0;
        let AccountEvent::Deposited { cents } = **event else {
            assert!(
                !matches!(&**event, AccountEvent::Noted { text } if text == "panic"),
                "a note that panics"
            );
            return Ok(());
        };
        let account = event.record.stream.id().to_owned();
        gateway.begun.send_modify(|begun| *begun += 1);
        if account == "slow" {
            gateway.slow.acquire().await.unwrap().forget();
        }
        let refused = gateway.refused.lock().unwrap().get(&account).cloned();
        if let Some(error) = refused {
            return Err(error);
        }
        tokio::task::yield_now().await;
        gateway
            .sent
            .send_modify(|sent| sent.push((account, cents, request.idempotency_key())));
        tokio::task::yield_now().await;
        Ok(())
    }
}

pub(super) fn texts(gateway: &Gateway) -> ReactorSetup<Texts> {
    ReactorSetup::of(Texts(gateway.clone()))
        .lease(Duration::from_secs(3600))
        .attempts(3, Duration::from_millis(1))
}

pub(super) async fn reacting(store: &TestStore, reaction: ReactorSetup<Texts>) -> Program {
    Annals::on(store.handle())
        .with(reaction)
        .start()
        .await
        .unwrap()
}

pub(super) async fn settled(db: &Program, done: &Committed) {
    db.reactor::<Texts>().wait_for(done, TIMEOUT).await.unwrap();
}
