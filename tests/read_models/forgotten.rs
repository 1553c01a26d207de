//! A person who is to be forgotten: what the guide says to do leaves nothing of them in any table.

use std::sync::Arc;
use std::time::Duration;

use annals::prelude::*;
use annals::projections::{Options, ReactError, Reactor, ReactorSetup, Request, ViewError};
use annals::{Metadata, Snapshots, Store};

use crate::fixture::SharedLogs;
use crate::oracle::TIMEOUT;

/// It is found wherever it is.
const NAME: &str = "Grace Hopper";

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "person")]
enum PersonEvent {
    Registered {
        #[event(tag = "called")]
        name: String,
    },
    /// All that is left.
    Forgotten,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Person {
    name: String,
}

impl Person {
    fn take(&mut self, event: &PersonEvent) {
        self.name = match event {
            PersonEvent::Registered { name } => name.clone(),
            PersonEvent::Forgotten => String::new(),
        };
    }
}

impl Aggregate for Person {
    type Event = PersonEvent;

    fn apply(&mut self, event: &PersonEvent) {
        self.take(event);
    }

    fn snapshots() -> Option<Snapshots<Person>> {
        Some(Snapshots::every(1))
    }
}

/// Rows with the name, as a value and as an entry of an index, and what they were.
macro_rules! people {
    ($name:ident, $($view:tt)*) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view($($view)*, events(PersonEvent))]
        struct $name {
            #[view(index)]
            name: String,
        }

        impl Project<PersonEvent> for $name {
            const SUMMARIES: &'static [&'static str] = &["person.forgotten"];

            fn on(row: &mut Row<'_, Self>, event: &Recorded<PersonEvent>) -> Result<(), Poison> {
                let mut person = Person::default();
                person.take(event);
                row.name = person.name;
                Ok(())
            }
        }
    };
}

people!(Earlier, name = "people", version = 1, history(bitemporal));
people!(People, name = "people", version = 2, history);
people!(AtOnce, name = "people_at_once", version = 1);

/// Cannot fold the name, and says it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "greetings", version = 1, events(PersonEvent))]
struct Greeting {
    sent: u64,
}

impl Project<PersonEvent> for Greeting {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<PersonEvent>) -> Result<(), Poison> {
        match &**event {
            PersonEvent::Registered { name } => Err(Poison::new(format!("nothing for {name}"))),
            PersonEvent::Forgotten => {
                row.sent = 0;
                Ok(())
            }
        }
    }
}

/// Cannot write to them, and says it.
struct Letters;

impl Reactor for Letters {
    const NAME: &'static str = "letters";
    type Event = PersonEvent;

    async fn react(&self, event: &Recorded<PersonEvent>, _: &Request) -> Result<(), ReactError> {
        match &**event {
            PersonEvent::Registered { name } => {
                Err(ReactError::permanent(format!("no address of {name}")))
            }
            PersonEvent::Forgotten => Ok(()),
        }
    }
}

/// The rows of all tables that tell of the person.
async fn found(fixture: &dyn SharedLogs) -> Vec<String> {
    let mut stored = fixture.stored("log").await;
    stored.retain(|row| row.contains(NAME));
    stored
}

async fn program(store: &Arc<dyn Store>) -> Program {
    let options = Options::default().poll(Duration::from_millis(5));
    Annals::on(Arc::clone(store))
        .with(ViewSetup::<People>::new().options(options.clone()))
        .with(ViewSetup::<AtOnce>::new().inline())
        .with(ViewSetup::<Greeting>::new().options(options))
        .with(ReactorSetup::of(Letters))
        .start()
        .await
        .unwrap()
}

async fn registered(db: &Annals, time: u64) -> Token {
    let person = db.aggregate::<Person>("7");
    let registers = |_: &Person| Ok::<_, String>(PersonEvent::Registered { name: NAME.into() });
    let run = person
        .run(registers)
        .idempotency_key(format!("{NAME} {time}"));
    let done = run.metadata(Metadata::default().actor(NAME)).await;
    Token::from(&done.unwrap())
}

async fn seen(db: &Program, done: &Token) {
    db.view::<People>()
        .wait_for(done.clone(), TIMEOUT)
        .await
        .unwrap();
    db.view::<Greeting>()
        .wait_for(done.clone(), TIMEOUT)
        .await
        .unwrap();
    db.reactor::<Letters>()
        .wait_for(done.clone(), TIMEOUT)
        .await
        .unwrap();
}

pub(crate) async fn a_forgotten_person_is_nowhere_in_the_store(fixture: &dyn SharedLogs) {
    let store = fixture.place("log").await.open().await;
    // An older program leaves a generation that nothing follows any more.
    let older = Annals::on(Arc::clone(&store));
    let older = older
        .with(ViewSetup::<Earlier>::new())
        .start()
        .await
        .unwrap();
    let done = registered(&older, 1).await;
    older
        .view::<Earlier>()
        .wait_for(done, TIMEOUT)
        .await
        .unwrap();
    older.stop().await;

    let db = program(&store).await;
    let building = db.rebuild::<People>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    let done = registered(&db, 2).await;
    seen(&db, &done).await;
    let before = found(fixture).await;
    for table in ["event", "snapshot", "view", "dead_letter"] {
        assert!(
            before
                .iter()
                .any(|row| row.split(':').next().unwrap().contains(table)),
            "nothing in {table}: {before:#?}"
        );
    }

    // What is left is named, and dropped; then the person is archived.
    let person = db.aggregate::<Person>("7");
    let forgets = |_: &Person| Ok::<_, String>(PersonEvent::Forgotten);
    let refused = person.archive(forgets).await.unwrap_err().to_string();
    assert!(refused.contains("`people` (version 1)"), "{refused}");
    assert!(
        refused.contains("drop what no program has any more"),
        "{refused}"
    );
    db.rebuild::<People>().drop_others().await.unwrap();
    let done = person.archive(forgets).await.unwrap();
    seen(&db, done.token()).await;
    let summary = done.events()[0].position;
    db.rebuild::<People>()
        .forget_history(summary)
        .await
        .unwrap();

    // What was dropped and forgotten is cleared in the background, with what is written next.
    let cleared = async {
        loop {
            let other = db.aggregate::<Person>("8");
            other.run(forgets).await.unwrap();
            let left = found(fixture).await;
            if left.is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(TIMEOUT, cleared).await;
    assert!(in_time.is_ok(), "{:#?}", found(fixture).await);
    let error = db.view::<People>().get("7").as_of(1).await.unwrap_err();
    assert!(matches!(error, ViewError::BeforeHistory { .. }), "{error}");
    let row = db.view::<People>().get("7").await.unwrap();
    assert_eq!(row, Some(People::default()));
    db.stop().await;
}
