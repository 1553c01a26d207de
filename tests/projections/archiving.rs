//! The past after archiving: the same answer, or an error that names what is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::chrono::{DateTime, Utc};
use annals_core::conformance::{Dice, rounds};
use annals_core::{Aggregate, Annals, CommandError, Partition, Phase, Position, Recorded};
use annals_macros::{Event, View};
use annals_projections::{
    Options, Poison, Program, Project, ReadModels, RebuildError, Row, View, ViewError, ViewSetup,
    With,
};
use serde::{Deserialize, Serialize};

use super::test_store::{TestStore, store};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "purse", crate = "annals_core")]
enum PurseEvent {
    Deposited { cents: i64 },
    Summed { cents: i64 },
}

impl PurseEvent {
    /// What is in a purse afterwards.
    fn change(&self, cents: &mut i64) {
        match self {
            PurseEvent::Deposited { cents: more } => *cents += more,
            PurseEvent::Summed { cents: all } => *cents = *all,
        }
    }

    fn deposited(&self) -> i64 {
        match self {
            PurseEvent::Deposited { cents } => *cents,
            PurseEvent::Summed { .. } => 0,
        }
    }
}

#[derive(Default)]
struct Purse {
    cents: i64,
}

impl Aggregate for Purse {
    type Event = PurseEvent;

    fn apply(&mut self, event: &PurseEvent) {
        event.change(&mut self.cents);
    }
}

/// What is in each purse; a summary replaces what came before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "contents",
    version = 1,
    events(PurseEvent),
    history,
    crate = "annals_projections"
)]
struct Content {
    cents: i64,
}

impl Project<PurseEvent> for Content {
    const SUMMARIES: &'static [&'static str] = &["purse.summed"];

    fn on(row: &mut Row<'_, Self>, event: &Recorded<PurseEvent>) -> Result<(), Poison> {
        event.event.change(&mut row.cents);
        Ok(())
    }
}

/// What was ever deposited, in one row; a summary says nothing new.
macro_rules! total {
    ($name:ident, $($view:tt)*) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view($($view)*, version = 1, events(PurseEvent), crate = "annals_projections")]
        struct $name {
            cents: i64,
        }

        impl Project<PurseEvent> for $name {
            fn keys(_: &Recorded<PurseEvent>) -> Result<Vec<String>, Poison> {
                Ok(vec!["all".into()])
            }

            fn on(row: &mut Row<'_, Self>, event: &Recorded<PurseEvent>) -> Result<(), Poison> {
                row.cents += event.event.deposited();
                Ok(())
            }
        }
    };
}

total!(Total, name = "total", key = String, history);
// Folded when it is asked.
total!(LiveTotal, name = "live_total", key = String);

/// As `Content`, also as of times of the world.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "dated_contents",
    version = 1,
    events(PurseEvent),
    history(bitemporal),
    crate = "annals_projections"
)]
struct Dated {
    cents: i64,
}

impl Project<PurseEvent> for Dated {
    const SUMMARIES: &'static [&'static str] = &["purse.summed"];

    fn on(row: &mut Row<'_, Self>, event: &Recorded<PurseEvent>) -> Result<(), Poison> {
        event.event.change(&mut row.cents);
        Ok(())
    }
}

async fn program(store: &TestStore, batch: usize) -> Program {
    let options = Options::default()
        .batch_events_max(batch)
        .poll(Duration::from_millis(5));
    Annals::on(store.handle())
        .with(Content::projection().options(options.clone()))
        .with(Total::projection().options(options))
        .with(LiveTotal::projection().live())
        .start()
        .await
        .unwrap()
}

async fn deposit(db: &Annals, purse: &str) -> u64 {
    let deposit = |_: &Purse| Ok::<_, String>(PurseEvent::Deposited { cents: 10 });
    let done = db.aggregate::<Purse>(purse).run(deposit).await.unwrap();
    done.events()[0].position.get()
}

fn summed(purse: &Purse) -> Result<PurseEvent, String> {
    Ok(PurseEvent::Summed { cents: purse.cents })
}

/// Ten deposits of 10, into purses `a` and `b` in turn.
async fn filled(db: &Annals) {
    for n in 0..10 {
        deposit(db, ["a", "b"][n % 2]).await;
    }
}

async fn total(db: &Program, at: u64) -> Result<i64, ViewError> {
    let then = db.view::<Total>().get("all").as_of(Position::new(at));
    Ok(then.await?.map_or(0, |row| row.cents))
}

async fn content(db: &Program, purse: &str, at: u64) -> Result<i64, ViewError> {
    let then = db.view::<Content>().get(purse).as_of(Position::new(at));
    Ok(then.await?.map_or(0, |row| row.cents))
}

async fn live_total(db: &Program, at: u64) -> Result<i64, ViewError> {
    let then = db.view::<LiveTotal>().get("all").as_of(Position::new(at));
    Ok(then.await?.map_or(0, |row| row.cents))
}

pub(crate) async fn a_rebuild_that_needs_archived_events_stops_and_names_them() {
    let store = store().await;
    let db = program(&store, 20_000).await;
    filled(&db).await;
    db.aggregate::<Purse>("a").archive(summed).await.unwrap();
    let building = db.rebuild::<Total>().begin().await.unwrap();
    let stopped = building.finished(|_| ()).await.unwrap_err();
    assert!(matches!(stopped, RebuildError::Stopped { .. }), "{stopped}");
    for said in ["`total`", "position 1 of `purse-a`", "Project::SUMMARIES"] {
        assert!(stopped.to_string().contains(said), "{stopped}");
    }
    // What serves goes on, past what was archived.
    let last = deposit(&db, "b").await;
    assert_eq!(total(&db, last).await.unwrap(), 110);
    db.stop().await;
}

pub(crate) async fn a_rebuild_folds_the_summary_that_the_view_names() {
    let store = store().await;
    let db = program(&store, 3).await;
    filled(&db).await;
    db.aggregate::<Purse>("a").archive(summed).await.unwrap();
    let building = db.rebuild::<Content>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    let generations = store.views().generations("contents").await.unwrap();
    assert_eq!(generations.last().unwrap().phase, Phase::Live);
    for purse in ["a", "b"] {
        assert_eq!(content(&db, purse, 11).await.unwrap(), 50, "{purse}");
        let error = content(&db, purse, 10).await.unwrap_err();
        assert!(matches!(error, ViewError::Archived { .. }), "{error}");
    }
    db.stop().await;
}

pub(crate) async fn an_answer_folded_from_the_log_lacks_no_archived_event() {
    let store = store().await;
    let db = program(&store, 20_000).await;
    filled(&db).await;
    assert_eq!(live_total(&db, 10).await.unwrap(), 100);
    db.aggregate::<Purse>("b").archive(summed).await.unwrap();
    assert_eq!(live_total(&db, 1).await.unwrap(), 10);
    let error = live_total(&db, 2).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the answer needs position 2 of `purse-b`, and that was archived: ask about a later moment"
    );
    db.stop().await;
}

pub(crate) async fn archiving_what_a_follower_has_not_read_is_refused() {
    let store = store().await;
    let first = program(&store, 20_000).await;
    filled(&first).await;
    assert_eq!(total(&first, 10).await.unwrap(), 100);
    assert_eq!(content(&first, "a", 10).await.unwrap(), 50);
    first.stop().await;
    let writer = Annals::on(store.handle());
    let unread = deposit(&writer, "a").await;
    let purse = writer.aggregate::<Purse>("a");
    let refused = purse.archive(summed).await.unwrap_err();
    let CommandError::NotReadByAll { followers, .. } = &refused else {
        panic!("{refused}");
    };
    let names: Vec<_> = followers.iter().map(|of| &*of.name).collect();
    assert_eq!(names, ["contents", "total"]);
    assert!(
        refused.to_string().contains("`total` (version 1)"),
        "{refused}"
    );
    assert_eq!(purse.load().await.unwrap().version().get(), 6, "no summary");

    let done = purse.archive_unread(summed).await.unwrap();
    let second = program(&store, 20_000).await;
    let error = second
        .view::<Total>()
        .get("all")
        .at_least(&done)
        .await
        .unwrap_err();
    assert!(matches!(error, ViewError::Stopped { .. }), "{error}");
    let said = format!("position {unread} of `purse-a`");
    assert!(error.to_string().contains(&said), "{error}");
    second.stop().await;
}

fn day(day: u32) -> DateTime<Utc> {
    format!("2026-03-{day:02}T12:00:00Z").parse().unwrap()
}

pub(crate) async fn what_was_valid_before_a_summary_occurred_is_no_answer() {
    for is_live in [false, true] {
        let store = store().await;
        let setup = ViewSetup::<Dated>::new();
        let setup = if is_live { setup.live() } else { setup };
        let db = Annals::on(store.handle()).with(setup);
        let db = db.start().await.unwrap();
        let purse = db.aggregate::<Purse>("a");
        for on in [1, 3, 5] {
            let deposit = |_: &Purse| Ok::<_, String>(PurseEvent::Deposited { cents: 10 });
            purse.run(deposit).occurred_at(day(on)).await.unwrap();
        }
        let valid_at = async |time: DateTime<Utc>| {
            let head = store.head(Partition(0)).await.unwrap().visible;
            let then = db.view::<Dated>().get("a").as_of(head).valid_at(time);
            Ok::<_, ViewError>(then.await?.map_or(0, |row| row.cents))
        };
        assert_eq!(valid_at(day(3)).await.unwrap(), 20);
        purse.archive(summed).await.unwrap();
        let since = "9999-01-01T00:00:00Z".parse().unwrap();
        for is_rebuilt in [false, true] {
            if is_rebuilt && !is_live {
                let building = db.rebuild::<Dated>().begin().await.unwrap();
                building.finished(|_| ()).await.unwrap();
            }
            assert_eq!(valid_at(since).await.unwrap(), 30);
            let error = valid_at(day(3)).await.unwrap_err();
            assert!(matches!(error, ViewError::Archived { .. }), "{error}");
        }
        db.stop().await;
    }
}

/// What was recorded, and with it all that is true of any position.
#[derive(Default)]
struct Truth(Vec<(u64, usize, PurseEvent)>);

const PURSES: [&str; 3] = ["a", "b", "c"];

impl Truth {
    fn content(&self, purse: usize, at: u64) -> i64 {
        let mut cents = 0;
        for (_, _, event) in self.until(at).filter(|(_, of, _)| *of == purse) {
            event.change(&mut cents);
        }
        cents
    }

    fn total(&self, at: u64) -> i64 {
        self.until(at).map(|(_, _, event)| event.deposited()).sum()
    }

    fn until(&self, at: u64) -> impl Iterator<Item = &(u64, usize, PurseEvent)> {
        self.0
            .iter()
            .take_while(move |(position, ..)| *position <= at)
    }
}

/// How many answers were right, and how many were errors.
type Answers = BTreeMap<&'static str, usize>;

fn judge(answers: &mut Answers, answer: Result<i64, ViewError>, expected: i64, asked: &str) {
    let kind = match answer {
        Ok(found) => {
            assert_eq!(found, expected, "{asked}");
            "right"
        }
        Err(ViewError::Archived { .. }) => "archived",
        Err(ViewError::Stopped { .. }) => "stopped",
        Err(error) => panic!("{asked}: {error}"),
    };
    *answers.entry(kind).or_default() += 1;
}

async fn random_program(seed: u64, answers: &mut Answers) {
    let store = store().await;
    let mut dice = Dice::new(seed);
    let mut truth = Truth::default();
    let mut db = program(&store, 1 + dice.roll(5) as usize).await;
    for _ in 0..40 {
        let purse = dice.roll(PURSES.len() as u64) as usize;
        let at = db.aggregate::<Purse>(PURSES[purse]);
        match dice.roll(20) {
            0 => {
                db.stop().await;
                db = program(&store, 1 + dice.roll(5) as usize).await;
            }
            1 | 2 => match at.archive(summed).await {
                Ok(done) => {
                    let cents = at.load().await.unwrap().cents;
                    let event = PurseEvent::Summed { cents };
                    truth
                        .0
                        .push((done.events()[0].position.get(), purse, event));
                }
                Err(CommandError::NotFound { .. }) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            },
            3 => _ = at.delete().await.unwrap(),
            4 => {
                let building = db.rebuild::<Content>().begin().await.unwrap();
                building.finished(|_| ()).await.unwrap();
            }
            5 => {
                let building = db.rebuild::<Total>().begin().await.unwrap();
                // It stops once something was archived, and what serves goes on.
                if building.finished(|_| ()).await.is_err() {
                    let building = db.rebuild::<Total>().under_way().await.unwrap().unwrap();
                    building.call_off().await.unwrap();
                }
            }
            _ => {
                let position = deposit(&db, PURSES[purse]).await;
                let event = PurseEvent::Deposited { cents: 10 };
                truth.0.push((position, purse, event));
            }
        }
    }
    let head = truth.0.last().map_or(0, |(position, ..)| *position);
    for moment in 1..=head {
        let asked = format!("seed {seed}, as of {moment}");
        judge(
            answers,
            total(&db, moment).await,
            truth.total(moment),
            &asked,
        );
        judge(
            answers,
            live_total(&db, moment).await,
            truth.total(moment),
            &asked,
        );
        for (purse, name) in PURSES.into_iter().enumerate() {
            let expected = truth.content(purse, moment);
            judge(answers, content(&db, name, moment).await, expected, &asked);
        }
    }
    db.stop().await;
}

pub(crate) async fn a_view_answers_about_the_past_exactly_or_refuses() {
    let runs = rounds(3, 200);
    let mut answers = Answers::new();
    for seed in 1..=runs {
        random_program(seed, &mut answers).await;
    }
    assert!(
        answers["right"] > 0 && answers["archived"] > 0,
        "{answers:?}"
    );
}
