//! A text message for every large withdrawal: a side effect that follows the log.
//!
//! `cargo run --example texts` tells a short story in memory: what is sent, what is not, and what
//! happens when the gateway is down.

#[path = "ended/mod.rs"]
mod ended;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals::prelude::*;
use annals::projections::{ReactError, Reactor, ReactorSetup, Request};

#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}

#[derive(Default)]
struct Account {
    cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

impl Account {
    fn withdraw(&self, cents: i64) -> Result<AccountEvent, String> {
        if self.cents < cents {
            return Err(format!("{} cents are missing", cents - self.cents));
        }
        Ok(AccountEvent::Withdrawn { cents })
    }
}

/// An external service. It knows a message again by its key, and sends it once.
#[derive(Default)]
struct Gateway {
    down: AtomicBool,
    keys: Mutex<BTreeSet<String>>,
    sent: Mutex<Vec<String>>,
}

impl Gateway {
    async fn send(&self, to: &str, text: &str, key: String) -> Result<(), String> {
        if self.down.load(Ordering::SeqCst) {
            return Err("the gateway is down".into());
        }
        if self
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key)
        {
            self.sent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(format!("to {to}: {text}"));
        }
        Ok(())
    }

    fn sent(&self) -> Vec<String> {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What is large, in cents.
const LARGE: i64 = 100_000;

struct LargeWithdrawals {
    gateway: Arc<Gateway>,
}

impl Reactor for LargeWithdrawals {
    const NAME: &'static str = "large-withdrawals";
    type Event = AccountEvent;

    async fn react(
        &self,
        event: &Recorded<AccountEvent>,
        request: &Request,
    ) -> Result<(), ReactError> {
        let AccountEvent::Withdrawn {
            cents: cents @ LARGE..,
        } = &**event
        else {
            return Ok(());
        };
        let owner = event.record.stream.id();
        let text = format!("{}.{:02} were withdrawn", cents / 100, cents % 100);
        // The key is the same for every attempt, also after a crash.
        self.gateway
            .send(owner, &text, request.idempotency_key())
            .await
            .map_err(ReactError::retry)
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

async fn tell(db: Annals, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let gateway = Arc::new(Gateway::default());
    let texts = ReactorSetup::of(LargeWithdrawals {
        gateway: Arc::clone(&gateway),
    })
    .attempts(2, Duration::from_millis(1));
    let db = db.with(texts).start().await?;
    let texts = db.reactor::<LargeWithdrawals>();

    let alice = db.aggregate::<Account>("alice");
    alice
        .run(|_| Ok::<_, String>(AccountEvent::Deposited { cents: 900_000 }))
        .await?;
    alice.run(|account| account.withdraw(2_500)).await?;
    let done = alice.run(|account| account.withdraw(250_000)).await?;
    texts.wait_for(&done, TIMEOUT).await?;
    writeln!(out, "sent: {:?}", gateway.sent())?;

    gateway.down.store(true, Ordering::SeqCst);
    let done = alice.run(|account| account.withdraw(100_000)).await?;
    texts.wait_for(&done, TIMEOUT).await?;
    for failed in texts.dead_letters().keys(None, 10).await? {
        writeln!(out, "{} waits: {}", failed.key, failed.reason)?;
    }

    gateway.down.store(false, Ordering::SeqCst);
    texts.retry("account-alice").await?;
    let mut poll = tokio::time::interval(Duration::from_millis(5));
    while !texts.dead_letters().keys(None, 1).await?.is_empty() {
        poll.tick().await;
    }
    writeln!(out, "sent: {:?}", gateway.sent())?;
    db.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut told = Vec::new();
    let outcome = tell(Annals::in_memory(), &mut told).await;
    let said = outcome.and_then(|()| Ok(io::stdout().write_all(&told)?));
    ended::ended("texts", said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_withdrawal_is_told_once() {
        let expected = r#"sent: ["to alice: 2500.00 were withdrawn"]
account-alice waits: the gateway is down
sent: ["to alice: 2500.00 were withdrawn", "to alice: 1000.00 were withdrawn"]
"#;
        for url in ["memory:", "sqlite::memory:"] {
            let mut told = Vec::new();
            tell(Annals::open(url).await.unwrap(), &mut told)
                .await
                .unwrap();
            assert_eq!(String::from_utf8(told).unwrap(), expected, "{url}");
        }
    }
}
