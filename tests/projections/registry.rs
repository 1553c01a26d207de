//! What a program is made of, for tools that do not know its types.

use annals_core::{
    Aggregate, Annals, Append, Decoded, Event, JsonText, NewEvent, Position, ReadLog, Recorded,
    ShowError, Stored, StreamId, Version,
};
use annals_macros::{Event, View};
use annals_projections::{
    Kind, Poison, Project, ReactError, Reactor, ReactorSetup, Register, Registry, Request, Row,
    View, With,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::bank::{AccountEvent, Balance, deposited, happens, noted};
use super::test_store::{TestStore, store};

/// The bank's account with a state that can be shown.
#[derive(Debug, Default, Serialize)]
struct Account {
    cents: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, event: &AccountEvent) {
        if let AccountEvent::Deposited { cents } = event {
            self.cents += cents;
        }
    }
}

/// Seats were counted in rows once.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "hall", crate = "annals_core")]
enum HallEvent {
    #[event(version = 2, upcast(1 = from_rows))]
    Built { seats: u32 },
}

#[derive(Deserialize)]
struct BuiltV1 {
    rows: u32,
}

fn from_rows(old: BuiltV1) -> HallEvent {
    HallEvent::Built {
        seats: old.rows * 10,
    }
}

struct Watches;

impl Reactor for Watches {
    const NAME: &'static str = "watches";
    type Event = HallEvent;

    async fn react(
        &self,
        _: &annals_core::Recorded<HallEvent>,
        _: &Request,
    ) -> Result<(), ReactError> {
        Ok(())
    }
}

async fn all(store: &TestStore) -> Vec<annals_core::RecordedEvent> {
    store
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events
}

pub(crate) async fn a_running_program_lists_what_it_is_made_of() {
    let store = store().await;
    let db = Annals::on(store.handle());
    let setup = db
        .with(Balance::projection())
        .with(ReactorSetup::of(Watches))
        .knows::<Account>();
    let listed = format!("{:?}", setup.registry());
    let db = setup.start().await.unwrap();
    let registry = db.registry();
    assert_eq!(format!("{registry:?}"), listed, "the same before it runs");

    let events: Vec<_> = registry.event_types().map(|(name, _)| name).collect();
    let of_account = [
        "account.closed",
        "account.deposited",
        "account.noted",
        "account.withdrawn",
    ];
    assert_eq!(events, [&of_account[..], &["hall.built"]].concat());
    let (_, built) = registry.event_types().last().unwrap();
    assert_eq!(
        built
            .shapes()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["hall.built v2", "hall.built v1"]
    );
    assert_eq!(
        registry
            .aggregates()
            .map(|kind| kind.category())
            .collect::<Vec<_>>(),
        ["account"]
    );
    let view = serde_json::to_value(registry.view_called("balances").unwrap()).unwrap();
    let expected = json!({
        "name": "balances", "version": 1, "history": "versions",
        "key": "alloc::string::String", "indexes": ["cents"],
        "handles": of_account,
    });
    assert_eq!(view, expected);
    let reactors: Vec<_> = registry
        .reactors()
        .map(|of| (of.kind, of.name, of.handles.clone()))
        .collect();
    assert_eq!(
        reactors,
        [(Kind::Reactor, "watches", vec!["hall.built".to_owned()])]
    );
    db.stop().await;
}

pub(crate) async fn stored_events_are_shown_as_the_program_reads_them_today() {
    let store = store().await;
    let hall = StreamId::new("hall-1").unwrap();
    let old = NewEvent::json("hall.built", r#"{"rows":12}"#);
    let other = NewEvent::json("hall.burnt", "null");
    let broken = NewEvent::json("hall.built", "[]");
    store
        .append(Append::new(hall, [old, other, broken]))
        .await
        .unwrap();
    let registry = Registry::new().events::<HallEvent>();
    let events = all(&store).await;
    let shown = registry.show(&events[0]).unwrap();
    assert_eq!(
        serde_json::to_value(&shown).unwrap(),
        json!([{
            "event_type": "hall.built", "schema_version": 2, "payload": { "seats": 120 },
        }])
    );
    let unknown = registry.show(&events[1]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "no event type called `hall.burnt` is registered"
    );
    assert!(matches!(
        registry.show(&events[2]),
        Err(ShowError::Undecodable(_))
    ));
    let stored = Stored {
        event_type: "hall.built",
        schema_version: 1,
        codec: "json",
        payload: br#"{"rows":1}"#,
    };
    assert_eq!(
        HallEvent::decode(stored).unwrap(),
        Decoded::One(HallEvent::Built { seats: 10 })
    );
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "meter", crate = "annals_core")]
enum MeterEvent {
    Read { total: u128 },
}

#[derive(Debug, Default, Serialize)]
struct Meter {
    total: u128,
}

impl Aggregate for Meter {
    type Event = MeterEvent;

    fn apply(&mut self, MeterEvent::Read { total }: &MeterEvent) {
        self.total = *total;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "meters",
    version = 1,
    events(MeterEvent),
    crate = "annals_projections"
)]
struct LastRead {
    total: u128,
}

impl Project<MeterEvent> for LastRead {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<MeterEvent>) -> Result<(), Poison> {
        let MeterEvent::Read { total } = **event;
        row.total = total;
        Ok(())
    }
}

pub(crate) async fn numbers_of_any_size_are_shown_to_the_last_digit() {
    let store = store().await;
    let db = Annals::on(store.handle());
    let total = u128::MAX - 1;
    let meter = db.aggregate::<Meter>("a");
    let read = |_: &Meter| Ok::<_, String>(MeterEvent::Read { total });
    meter.run(read).await.unwrap();
    let registry = Registry::new().aggregate::<Meter>().view::<LastRead>();
    let events = all(&store).await;
    let event = registry.show(&events[0]).unwrap().remove(0);
    assert_eq!(event.payload.to_string(), format!(r#"{{"total":{total}}}"#));
    let stream = StreamId::new("meter-a").unwrap();
    let state = registry.state(&db, &stream, None).await.unwrap().state;
    assert_eq!(state.to_string(), format!(r#"{{"total":{total}}}"#));
    let view = registry.view_called("meters").unwrap();
    let row = view.fold("a", None, &events).unwrap().unwrap();
    assert_eq!(row.to_string(), format!(r#"{{"total":{total}}}"#));
    let again = view.fold("a", Some(&row), &[]).unwrap();
    assert_eq!(again, Some(row));
}

pub(crate) async fn states_are_shown_at_any_version() {
    let store = store().await;
    let db = Annals::on(store.handle());
    for cents in [5, 7] {
        happens(&db, "alice", deposited(cents)).await;
    }
    let registry = Registry::new().aggregate::<Account>();
    let alice = StreamId::new("account-alice").unwrap();
    let mut states = Vec::new();
    for version in [None, Some(2), Some(1), Some(0)] {
        let shown = registry
            .state(&db, &alice, version.map(Version::from))
            .await
            .unwrap();
        states.push((shown.version, shown.state));
    }
    let shown = |json| JsonText::of(&json).unwrap();
    let at = |version: u64, cents: i64| (Version::from(version), shown(json!({ "cents": cents })));
    assert_eq!(states, [at(2, 12), at(2, 12), at(1, 5), at(0, 0)]);
    assert!(matches!(
        registry.state(&db, &alice, Some(3.into())).await,
        Err(ShowError::Load(_))
    ));
    let nothing = registry
        .state(&db, &StreamId::new("hall-1").unwrap(), None)
        .await
        .unwrap_err();
    assert_eq!(
        nothing.to_string(),
        "no aggregate called `hall` is registered"
    );
}

pub(crate) async fn rows_are_folded_without_their_type() {
    let store = store().await;
    let db = Annals::on(store.handle());
    for (account, event) in [
        ("alice", deposited(5)),
        ("bob", deposited(9)),
        ("alice", deposited(2)),
    ] {
        happens(&db, account, event).await;
    }
    happens(&db, "alice", noted("poison")).await;
    happens(&db, "bob", AccountEvent::Closed).await;
    let events = all(&store).await;
    let registry = Registry::new().view::<Balance>();
    let view = registry.view_called("balances").unwrap();
    assert_eq!(view.keys(&events[1]).unwrap(), ["bob"]);

    let first = view.fold("alice", None, &events[..1]).unwrap();
    let shown = |text: &str| JsonText::parse(text.as_bytes()).unwrap();
    assert_eq!(first, Some(shown(r#"{"cents":5,"events":1}"#)));
    let next = view.fold("alice", first.as_ref(), &events[1..3]).unwrap();
    assert_eq!(next, Some(shown(r#"{"cents":7,"events":2}"#)));
    assert_eq!(
        view.fold("bob", None, &events).unwrap(),
        None,
        "it was removed"
    );
    let poisoned = view.fold("alice", next.as_ref(), &events[3..]).unwrap_err();
    assert_eq!(
        poisoned.to_string(),
        "cannot be shown: the event at 4 cannot be folded: a poisoned note"
    );
    assert!(matches!(
        view.fold("alice", Some(&shown(r#""no row""#)), &[]),
        Err(ShowError::Unshowable(_))
    ));
}
