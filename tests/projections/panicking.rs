//! Whatever code of users panics with, and wherever, it stays with its key.

use std::future::Future;
use std::panic::panic_any;
use std::time::Duration;

use annals_core::{Annals, Recorded};
use annals_projections::{
    Handlers, Poison, Project, ReactError, Reactor, ReactorSetup, ReadModels, Request, Row, View,
    ViewError, ViewKey, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, happens, noted, options};
use super::gateway::TIMEOUT;
use super::test_store::store;

/// Panics when it is dropped, unless something panics already.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

fn text(event: &AccountEvent) -> &str {
    match event {
        AccountEvent::Noted { text } => text,
        _ => "",
    }
}

struct Fragile;

impl Reactor for Fragile {
    const NAME: &'static str = "fragile";
    type Event = AccountEvent;

    fn key(event: &Recorded<AccountEvent>) -> String {
        assert_ne!(text(event), "key", "a key that panics");
        event.record.stream.id().to_owned()
    }

    fn react(
        &self,
        event: &Recorded<AccountEvent>,
        _: &Request,
    ) -> impl Future<Output = Result<(), ReactError>> + Send {
        let text = text(event).to_owned();
        assert_ne!(text, "at once", "before there is a future");
        async move {
            match &*text {
                "number" => panic_any(7),
                "payload" => panic_any(Bomb),
                "end" => drop(Bomb),
                "hangs" => {
                    let _bomb = Bomb;
                    std::future::pending::<()>().await;
                }
                "later" => {
                    tokio::task::yield_now().await;
                    panic!("after a while");
                }
                _ => {}
            }
            Ok(())
        }
    }
}

pub(crate) async fn a_call_that_panics_anywhere_stops_its_key_only() {
    let store = store().await;
    let reacts = ReactorSetup::of(Fragile).attempts(1, Duration::from_millis(1));
    let reacts = reacts.call_timeout(Duration::from_millis(100));
    let reacts = reacts.lease(Duration::from_secs(3600));
    let db = Annals::on(store.handle())
        .with(reacts)
        .start()
        .await
        .unwrap();
    let reactor = db.reactor::<Fragile>();
    let wrong = ["at once", "end", "hangs", "later", "number", "payload"];
    for text in wrong {
        happens(&db, text, noted(text)).await;
        let done = happens(&db, "others", deposited(1)).await;
        reactor.wait_for(&done, TIMEOUT).await.unwrap();
    }
    let letters = reactor.dead_letters().all(None, 99).await.unwrap();
    let said: Vec<_> = letters
        .iter()
        .map(|of| (&*of.key, of.reason.as_deref().unwrap_or_default()))
        .collect();
    let panicked = |what: &str| format!("the handler panicked: {what}");
    let causes = [
        panicked("assertion `left != right` failed: before there is a future"),
        panicked("dropped"),
        "the call took longer than 100ms".to_owned(),
        panicked("after a while"),
        panicked("without a message"),
        panicked("without a message"),
    ];
    for ((key, reason), (wanted, expected)) in said.iter().zip(wrong.iter().zip(&causes)) {
        assert_eq!(key, wanted);
        assert!(reason.starts_with(&**expected), "{key}: {reason}");
    }
    assert_eq!(said.len(), wrong.len());

    // Without a key it belongs to none: it stops the reactor until it is skipped.
    let bad = happens(&db, "others", noted("key")).await;
    let done = happens(&db, "others", deposited(1)).await;
    let stopped = reactor.wait_for(&done, TIMEOUT).await.unwrap_err();
    assert!(
        stopped.to_string().contains("a key that panics"),
        "{stopped}"
    );
    let position = bad.events()[0].position;
    reactor.skip_event(position, "no key").await.unwrap();
    reactor.wait_for(&done, TIMEOUT).await.unwrap();
    db.stop().await;
}

/// A key that panics when it is written or read.
#[derive(Clone, Debug, PartialEq)]
struct Name(String);

impl ViewKey for Name {
    fn to_key(&self) -> String {
        assert_ne!(self.0, "unwritten", "no text");
        self.0.clone()
    }

    fn from_key(text: &str) -> Option<Name> {
        assert_ne!(text, "unread", "no name");
        Some(Name(text.into()))
    }

    fn from_stream_id(id: &str) -> Option<Name> {
        Some(Name(id.into()))
    }

    fn type_of_key() -> String {
        "name".to_owned()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Named {
    events: u64,
}

impl View for Named {
    const NAME: &'static str = "named";
    type Key = Name;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for Named {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match text(event) {
            "number" => panic_any(7),
            "payload" => panic_any(Bomb),
            _ => row.events += 1,
        }
        Ok(())
    }
}

pub(crate) async fn a_row_that_panics_anywhere_stops_its_key_only() {
    let store = store().await;
    let setup = ViewSetup::<Named>::new().options(options());
    let db = Annals::on(store.handle())
        .with(setup)
        .start()
        .await
        .unwrap();
    let view = db.view::<Named>();
    for text in ["number", "payload"] {
        happens(&db, text, noted(text)).await;
        let done = happens(&db, "others", deposited(1)).await;
        view.wait_for(&done, TIMEOUT).await.unwrap();
    }
    let keys = view.dead_letter_keys(None, 9).await.unwrap();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let done = happens(&db, "unread", deposited(1)).await;
    view.wait_for(&done, TIMEOUT).await.unwrap();
    let rows = view.rows().await.unwrap_err();
    assert!(matches!(rows, ViewError::Unreadable(_)), "{rows}");
    let unread = view.get(Name("unread".into())).await.unwrap();
    assert_eq!(unread, Some(Named { events: 1 }));
    let unwritten = view.get(Name("unwritten".into())).await.unwrap_err();
    assert!(matches!(unwritten, ViewError::Invalid(_)), "{unwritten}");
    let others = view.get(Name("others".into())).await.unwrap();
    assert_eq!(others, Some(Named { events: 2 }));
    db.stop().await;
}
