//! Code of the application that panics: an error that names it, and everything goes on.

use std::fmt;
use std::sync::Arc;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Aggregate, Annals, Append, Clock, CommandError, DecodeError, EncodeError, EventId, Fold,
    IdSource, LoadError, NewEvent, Query, Recorded, Snapshots, StreamId, with_causes,
};
use annals_macros::Event;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that panics where it is told to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Trap(String);

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, "write", "a serializer that panics");
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Trap, D::Error> {
        let text = String::deserialize(deserializer)?;
        assert_ne!(text, "read", "a reader that panics");
        Ok(Trap(text))
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert_ne!(self.0, "tag", "a tag that panics");
        f.write_str(&self.0)
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "trap", crate = "annals_core")]
enum TrapEvent {
    #[event(version = 2, upcast(1 = of_old))]
    Set {
        #[event(tag)]
        text: Trap,
    },
}

/// What was written before there were traps.
#[derive(Deserialize)]
struct OldSet {
    number: u32,
}

fn of_old(old: OldSet) -> TrapEvent {
    assert_ne!(old.number, 13, "an upcaster that panics");
    TrapEvent::Set {
        text: Trap(old.number.to_string()),
    }
}

fn set(text: &str) -> TrapEvent {
    TrapEvent::Set {
        text: Trap(text.into()),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Traps {
    texts: Vec<String>,
}

impl Aggregate for Traps {
    type Event = TrapEvent;

    fn apply(&mut self, TrapEvent::Set { text }: &TrapEvent) {
        self.texts.push(text.0.clone());
        assert_ne!(text.0, "apply", "a fold that panics");
    }

    fn snapshots() -> Option<Snapshots<Traps>> {
        Some(Snapshots::every(1))
    }
}

/// The same events, from wherever a query finds them.
#[derive(Default)]
struct Seen(usize);

impl Fold for Seen {
    type Event = TrapEvent;

    fn apply(&mut self, event: &Recorded<TrapEvent>) {
        let TrapEvent::Set { text } = &**event;
        assert_ne!(text.0, "apply", "a fold that panics");
        self.0 += 1;
    }
}

/// A state that cannot begin.
struct Endless;

impl Default for Endless {
    fn default() -> Endless {
        panic!("a default that panics")
    }
}

impl Aggregate for Endless {
    type Event = TrapEvent;

    fn apply(&mut self, _: &TrapEvent) {}
}

type Error = CommandError<String>;

/// The aggregate holds `texts`, for this process and for a new one, and takes commands.
async fn check_usable(db: &Annals, id: &str, texts: &[&str]) {
    let of_new = Annals::on(Arc::clone(db.store()));
    for db in [db, &of_new] {
        let traps = db.aggregate::<Traps>(id);
        assert_eq!(traps.load().await.unwrap().texts, texts, "{id}");
        let held = traps.query(|state| state.texts.clone()).await.unwrap();
        assert_eq!(held, texts, "{id}");
    }
}

#[tokio::test]
async fn what_cannot_be_written_names_its_event_type() {
    let db = Annals::in_memory();
    let traps = db.aggregate::<Traps>("a");
    traps.run(|_| Ok::<_, String>(set("1"))).await.unwrap();
    let rows = [
        ("write", "trap.set", "a serializer that panics"),
        ("tag", "trap.set", "a tag that panics"),
        ("read", "trap.set", "a reader that panics"),
    ];
    for (text, event_type, said) in rows {
        let alone = traps.run(|_| Ok::<_, String>(set(text))).await;
        let beside = db
            .decide((Traps::at("a"), Traps::at("b")), |_| {
                Ok::<_, String>((set("2"), set(text)))
            })
            .await;
        for refused in [alone, beside] {
            let error: Error = refused.unwrap_err();
            assert!(matches!(error, CommandError::Encode(_)), "{error:?}");
            let told = error.to_string();
            assert!(told.contains(event_type) && told.contains(said), "{told}");
        }
    }
    let error = NewEvent::of(&set("write")).unwrap_err();
    assert!(matches!(&error, EncodeError::Panicked { name, .. } if name == "trap.set"));
    check_usable(&db, "a", &["1"]).await;
}

#[tokio::test]
async fn an_upcaster_that_panics_names_its_event() {
    let db = Annals::in_memory();
    let traps = db.aggregate::<Traps>("a");
    let old = |number: u32| {
        let payload = format!(r#"{{"number":{number}}}"#).into_bytes();
        NewEvent::new("trap.set", "json", payload)
    };
    let append = Append::new(StreamId::new("trap-a").unwrap(), [old(7), old(13)]);
    db.store().append(append).await.unwrap();
    let error = traps.load().await.unwrap_err();
    let LoadError::Undecodable(unread) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(unread.version.get(), 2);
    assert!(matches!(
        &unread.source,
        DecodeError::Panicked { event_type, schema_version: 1, .. } if event_type == "trap.set"
    ));
    let told = with_causes(&error).to_string();
    assert!(told.contains("an upcaster that panics"), "{told}");
    assert!(told.contains("`trap-a`"), "{told}");
    // What can be read is read, and shown beside what cannot.
    assert_eq!(traps.load().at_version(1).await.unwrap().texts, ["7"]);
    let history = traps.history().await.unwrap();
    let readable: Vec<_> = history.entries.iter().map(|e| e.events.is_ok()).collect();
    assert_eq!(readable, [true, false]);
    let refused = traps.run(|_| Ok::<_, String>(set("2"))).await.unwrap_err();
    assert!(
        refused.to_string().contains("an upcaster that panics"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_fold_that_panics_names_state_and_event() {
    let db = Annals::in_memory();
    let traps = db.aggregate::<Traps>("a");
    // It is written before it is folded, so the command took effect, and the next one is told.
    let done = traps
        .run(|_| Ok::<_, String>([set("1"), set("apply")]))
        .await;
    assert_eq!(done.unwrap().events().len(), 2);
    let both = (Traps::at("a"), Traps::at("b"));
    let over = Seen::over(Query::tagged(["text:apply".parse().unwrap()]));
    let errors: [Error; 4] = [
        traps.run(|_| Ok(())).await.unwrap_err(),
        traps.load().await.unwrap_err().into(),
        db.decide(both, |_| Ok(())).await.unwrap_err(),
        db.decide(over, |_| Ok(())).await.unwrap_err(),
    ];
    for (error, state) in errors.iter().zip(["Traps", "Traps", "Traps", "Seen"]) {
        let CommandError::Panicked(panicked) = error else {
            panic!("{error:?}");
        };
        assert!(
            panicked.reason().contains("a fold that panics"),
            "{panicked}"
        );
        for part in [state, "`trap.set`", "version 2", "`trap-a`"] {
            assert!(panicked.code().contains(part), "{part}: {panicked}");
        }
    }
    // Others go on, and what was before is there.
    assert_eq!(traps.load().at_version(1).await.unwrap().texts, ["1"]);
    check_usable(&db, "b", &[]).await;
}

#[tokio::test]
async fn a_decision_that_panics_is_an_error() {
    let db = Annals::in_memory();
    let traps = db.aggregate::<Traps>("a");
    traps.run(|_| Ok::<_, String>(set("1"))).await.unwrap();
    // The first answer is made from the cache, the second from what was just read.
    let cached: Result<_, Error> = traps.run(|_| -> Result<(), _> { panic!("a rule") }).await;
    let fresh: Result<_, Error> = traps.run(|_| -> Result<(), _> { panic!("a rule") }).await;
    let both = (Traps::at("a"), Traps::at("b"));
    let several: Result<_, Error> = db
        .decide(both, |_| -> Result<((), ()), _> { panic!("a rule") })
        .await;
    let led = |_: &Traps| -> annals_core::At<Traps> { panic!("a rule") };
    let two_looks: Result<_, Error> = db
        .decide_in_two_looks(Traps::at("a"), led, |_| Ok(((), ())))
        .await;
    for answer in [cached, fresh, several, two_looks] {
        let error = answer.unwrap_err();
        assert!(matches!(error, CommandError::Panicked(_)), "{error:?}");
        assert!(error.to_string().ends_with("panicked: a rule"), "{error}");
    }
    let looked = traps.query(|_| -> u8 { panic!("a look") }).await;
    assert!(
        looked
            .unwrap_err()
            .to_string()
            .ends_with("panicked: a look")
    );
    check_usable(&db, "a", &["1"]).await;
}

#[tokio::test]
async fn a_default_that_panics_is_an_error() {
    let db = Annals::in_memory();
    let endless = db.aggregate::<Endless>("a");
    let load = endless.load().await.err().unwrap().to_string();
    let run: Error = endless.run(|_| Ok(())).await.unwrap_err();
    for told in [load, run.to_string()] {
        assert!(told.contains("Endless"), "{told}");
        assert!(told.ends_with("panicked: a default that panics"), "{told}");
    }
}

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> DateTime<Utc> {
        panic!("a clock that panics")
    }
}

impl IdSource for Stopped {
    fn next(&self) -> EventId {
        panic!("ids that panic")
    }
}

#[tokio::test]
async fn a_handles_clock_or_ids_may_panic() {
    let db = Annals::in_memory();
    let rows = [
        (
            db.clone().with_clock(Arc::new(Stopped)),
            "a clock that panics",
        ),
        (db.clone().with_ids(Arc::new(Stopped)), "ids that panic"),
    ];
    for (handle, said) in rows {
        let traps = handle.aggregate::<Traps>("a");
        let run = traps.run(|_| Ok::<_, String>(set("1")));
        let error = run.await.unwrap_err();
        assert!(matches!(error, CommandError::Panicked(_)), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
    check_usable(&db, "a", &[]).await;
}
