//! Rows that cannot be stored after an event and could be after the next: the event is a dead
//! letter wherever batches end, and in every lifecycle.

use std::time::Duration;

use annals_core::conformance::rounds;
use annals_core::{Annals, Append, History, NewEvent, Position, Recorded, StreamId};
use annals_projections::{
    Handlers, Poison, Program, Project, ReadModels, Row, RowEntry, View, ViewKey, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, noted, options};
use super::test_store::{TestStore, store};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Notes make the row unfit, each in another way; every other event makes it good again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fragile {
    events: u64,
    mean: f64,
    note: Option<Option<u8>>,
    #[serde(skip_serializing_if = "is_set")]
    odd: bool,
    name: String,
}

fn is_set(odd: &bool) -> bool {
    *odd
}

const NOTES: [&str; 4] = [
    "no number",
    "nothing in some",
    "a skipped field",
    "a long name",
];

impl Project<AccountEvent> for Fragile {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        let events = row.events + 1;
        **row = Fragile {
            events,
            ..Fragile::default()
        };
        let AccountEvent::Noted { text } = &**event else {
            return Ok(());
        };
        match text.as_str() {
            "no number" => row.mean = f64::NAN,
            "nothing in some" => row.note = Some(None),
            "a skipped field" => row.odd = true,
            _ => row.name = "x".repeat(2_000),
        }
        Ok(())
    }
}

impl View for Fragile {
    const NAME: &'static str = "fragile";
    const HISTORY: History = History::Versions;
    const INDEXES: &'static [&'static str] = &["name"];
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }

    fn indexed(&self) -> Vec<String> {
        vec![self.name.to_key()]
    }
}

/// What happens to alice and bob, one after another; the second event makes a row unfit.
fn history(note: &str) -> Vec<(&'static str, AccountEvent)> {
    vec![
        ("alice", deposited(1)),
        ("alice", noted(note)),
        ("alice", deposited(2)),
        ("bob", deposited(3)),
        ("alice", deposited(4)),
    ]
}

async fn append(store: &TestStore, events: &[(&str, AccountEvent)]) -> Position {
    let now = Annals::on(store.handle()).clock().now();
    let mut append = Append::default();
    append.events = events
        .iter()
        .map(|(account, event)| {
            let stream = StreamId::new(format!("account-{account}")).unwrap();
            (stream, NewEvent::of(event).unwrap().at(now))
        })
        .collect();
    let appended = store.append(append).await.unwrap();
    appended.events().last().unwrap().position
}

async fn start(store: &TestStore, setup: ViewSetup<Fragile>) -> Program {
    let setup = setup.options(options());
    let db = Annals::on(store.handle());
    db.with(setup).start().await.unwrap()
}

/// How many events each row has, as of every position and now.
async fn counted(db: &Program, events: u64) -> Vec<Vec<(String, u64)>> {
    let view = db.view::<Fragile>();
    let mut found = Vec::new();
    for position in (0..=events).map(Position::new) {
        found.push(view.rows().as_of(position).await.unwrap().rows);
    }
    found.push(view.rows().await.unwrap().rows);
    let count = |row: RowEntry<Fragile>| (row.key, row.value.events);
    let of = |rows: Vec<RowEntry<Fragile>>| rows.into_iter().map(count).collect();
    found.into_iter().map(of).collect()
}

/// What is right: alice stays as she was before her second event.
fn expected() -> Vec<Vec<(String, u64)>> {
    let rows = |alice: u64, bob: u64| {
        let rows = [("alice".to_owned(), alice), ("bob".to_owned(), bob)];
        let there = rows.into_iter().filter(|(_, events)| *events > 0);
        there.collect::<Vec<_>>()
    };
    let bobs = [0, 0, 0, 0, 1, 1, 1];
    let of = |(position, bob): (usize, u64)| rows(u64::from(position > 0), bob);
    bobs.into_iter().enumerate().map(of).collect()
}

async fn letters(db: &Program) -> Vec<(String, u64)> {
    let keys = db.view::<Fragile>().dead_letter_keys(None, 10).await;
    let keys = keys.unwrap().into_iter();
    keys.map(|of| (of.key, of.position.get())).collect()
}

pub(crate) async fn a_row_invalid_between_events_is_treated_alike_everywhere() {
    for note in NOTES {
        let events = history(note);
        // A bit for each place where a batch may end: nowhere, everywhere and by turns, or all.
        let all = 0..1_u32 << (events.len() - 1);
        for cuts in all.step_by(rounds(5, 1) as usize) {
            let store = store().await;
            let db = start(&store, ViewSetup::new()).await;
            let mut begin = 0;
            for end in 1..=events.len() {
                if end < events.len() && cuts & 1 << (end - 1) == 0 {
                    continue;
                }
                let at = append(&store, &events[begin..end]).await;
                let token = annals_core::Token::new(store.id());
                let token = token.with(annals_core::Partition(0), at);
                let view = db.view::<Fragile>();
                view.wait_for(token, TIMEOUT).await.unwrap();
                begin = end;
            }
            let which = format!("{note}, cut at {cuts:b}");
            assert_eq!(letters(&db).await, [("alice".to_owned(), 2)], "{which}");
            assert_eq!(counted(&db, 5).await, expected(), "{which}");
            db.stop().await;
        }
    }
}

pub(crate) async fn a_row_invalid_between_events_is_treated_alike_when_built() {
    for note in NOTES {
        let store = store().await;
        append(&store, &history(note)).await;
        let db = start(&store, ViewSetup::new()).await;
        assert_eq!(letters(&db).await, [("alice".to_owned(), 2)], "{note}");
        assert_eq!(counted(&db, 5).await, expected(), "{note}");
        db.stop().await;
        let lives = [
            ViewSetup::<Fragile>::new().live(),
            ViewSetup::new().live_by_stream(),
        ];
        for setup in lives {
            let setup = setup.options(options());
            let db = Annals::on(store.handle()).with(setup);
            let db = db.views_in(std::sync::Arc::new(annals_core::MemoryStore::new()));
            let db = db.start().await.unwrap();
            assert_eq!(counted(&db, 5).await, expected(), "{note}, live");
            db.stop().await;
        }
    }
}
