//! A view is rebuilt by processes that are killed, while events are appended and a reader looks:
//! it sees whole rows of one moment, always.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::prelude::*;
use annals::projections::Options;
use annals::projections::{ReactError, Reactor, ReactorSetup, Request};
use annals::read_model::{Phase, ReadRows, RowsBy};
use annals::store::{Append, NewEvent, ReadLog};
use annals::{Partition, Recorded, Store};
use annals_core::conformance::{Dice, rounds};
use tokio::sync::Mutex;

use crate::child::{ChildProcess, Step, Work, say};
use crate::fixture::{Location, SharedLogs};
use crate::oracle::{
    Rows, TIMEOUT, Tally, append, caught_up, counted, history, options, replay, rows,
};

const KEYS: u64 = 40;
/// Several times as many as all killed builders read together.
fn events() -> u64 {
    rounds(15_000, 30_000)
}

const BELLS: u64 = 100;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "bell")]
pub(crate) enum BellEvent {
    Rung,
}

static RUNG: AtomicU64 = AtomicU64::new(0);

/// A side effect.
pub(crate) struct Bell;

impl Reactor for Bell {
    const NAME: &'static str = "bell";
    type Event = BellEvent;

    async fn react(&self, _: &Recorded<BellEvent>, _: &Request) -> Result<(), ReactError> {
        RUNG.fetch_add(1, Ordering::SeqCst);
        say("rung");
        Ok(())
    }
}

pub(crate) fn build_options() -> Options {
    options().batch_events_max(100)
}

/// What the process does that is killed: it begins to build, or goes on.
pub(crate) async fn build(db: Program) -> Program {
    let rebuild = db.rebuild::<Tally>();
    let under_way = rebuild.under_way().await.unwrap();
    let building = match under_way {
        Some(building) => building,
        None if db
            .store()
            .views()
            .unwrap()
            .generations(Tally::NAME)
            .await
            .unwrap()
            .len()
            > 1 =>
        {
            say("built");
            return db;
        }
        None => rebuild.begin().await.unwrap(),
    };
    building.finished(|_| ()).await.unwrap();
    say("built");
    db
}

async fn filled(place: &Location) -> Arc<dyn Store> {
    RUNG.store(0, Ordering::SeqCst);
    let store = place.open().await;
    let mut dice = Dice::new(events());
    for _ in 0..events() / 1_000 {
        append(&*store, &mut dice, KEYS, 1_000).await;
    }
    let bells = (0..BELLS).map(|_| NewEvent::of(&BellEvent::Rung).unwrap());
    store
        .append(Append::new(StreamId::new("bell-1").unwrap(), bells))
        .await
        .unwrap();
    let bell = ReactorSetup::of(Bell)
        .from_the_beginning()
        .lease(options().lease);
    let db = Annals::on(Arc::clone(&store));
    let db = db
        .with(ViewSetup::<Tally>::new().options(build_options().batch_events_max(5_000)))
        .with(bell);
    let db = db.start().await.unwrap();
    caught_up::<Tally>(&db).await;
    let head = db.store().head(Partition(0)).await.unwrap().visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    db.reactor::<Bell>().wait_for(token, TIMEOUT).await.unwrap();
    db.stop().await;
    assert_eq!(RUNG.load(Ordering::SeqCst), BELLS);
    store
}

/// What a replay gives at any position, without starting again each time.
struct Replay {
    store: Arc<dyn Store>,
    history: Vec<Option<(String, u64)>>,
    position: usize,
    rows: Rows,
}

impl Replay {
    async fn at(&mut self, position: usize) -> &Rows {
        while self.history.len() < position {
            let read = ReadLog::after(Position::new(self.history.len() as u64));
            self.history.extend(
                self.store
                    .read(read)
                    .await
                    .unwrap()
                    .events
                    .iter()
                    .map(counted),
            );
        }
        if position < self.position {
            self.position = 0;
            self.rows = Rows::new();
        }
        for (key, amount) in self.history[self.position..position].iter().flatten() {
            self.rows.entry(key.clone()).or_default().add(*amount);
        }
        self.position = position;
        &self.rows
    }
}

/// Looks every ten milliseconds, and finds the rows of a replay each time. Says how often it
/// looked.
async fn look(place: Location, over: Arc<AtomicBool>) -> u64 {
    let store = place.open().await;
    let views = store.views().unwrap();
    let mut replay = Replay {
        store: Arc::clone(&store),
        history: Vec::new(),
        position: 0,
        rows: Rows::new(),
    };
    let mut looks = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let everything = RowsBy::KeyRange(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    while !over.load(Ordering::SeqCst) {
        let serving = views
            .live_generation(Tally::NAME, Tally::VERSION)
            .await
            .unwrap()
            .expect("none serves");
        let page = views
            .read_rows(ReadRows::of(serving.id, everything.clone()))
            .await
            .unwrap();
        let decoded = page
            .rows
            .iter()
            .map(|row| serde_json::from_slice::<Tally>(&row.value).map(|value| value.count));
        let found: Rows = page
            .rows
            .iter()
            .map(|row| row.key.clone())
            .zip(decoded.map(Result::unwrap))
            .collect();
        let at = page.checkpoints[0].position.get();
        assert!(at >= events(), "what serves is at {at}");
        assert_eq!(
            found,
            *replay.at(at as usize).await,
            "generation {} at {at}",
            serving.id
        );
        looks += 1;
        pace.tick().await;
    }
    looks
}

/// Kills processes that build: at their commits, before they switch, and after that. Says what all
/// of them said.
fn kill_those_who_build(place: &Location) -> Vec<String> {
    let mut dice = Dice::new(20);
    let mut steps: Vec<(Step, u64)> = (0..rounds(7, 17))
        .map(|_| (Step::AfterCommit, 1 + dice.roll(12)))
        .collect();
    for (index, step) in steps.iter_mut().enumerate() {
        step.0 = [Step::AfterCommit, Step::BeforeWrite, Step::AfterRead][index % 3];
    }
    // The first of them that changes a generation begins one.
    steps[0] = (Step::AfterSwitch, 1);
    steps.extend([
        (Step::BeforeSwitch, 1),
        (Step::BeforeSwitch, 1),
        (Step::AfterSwitch, 1),
    ]);
    let mut said = Vec::new();
    for (step, times) in steps {
        let child = ChildProcess::start(place, Work::Build, step, times);
        child.says("here");
        said.extend(child.killed());
    }
    let last = ChildProcess::start(place, Work::Build, Step::Never, 0);
    last.says("built");
    said.extend(last.killed());
    said
}

/// The calls of the reactor are counted in all of this process.
static ONE_AFTER_ANOTHER: Mutex<()> = Mutex::const_new(());

pub(crate) async fn readers_see_whole_views_while_builders_are_killed(fixture: &dyn SharedLogs) {
    let _alone = ONE_AFTER_ANOTHER.lock().await;
    let began = Instant::now();
    let place = fixture.place("log").await;
    let store = filled(&place).await;
    let over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(look(place.clone(), Arc::clone(&over)));
    let appending = Arc::clone(&store);
    let stop = Arc::clone(&over);
    let writer = tokio::spawn(async move {
        let mut dice = Dice::new(5);
        // Slower than views follow on a busy machine: else no build comes to its end.
        let mut pace = tokio::time::interval(Duration::from_millis(25));
        while !stop.load(Ordering::SeqCst) {
            append(&*appending, &mut dice, KEYS, 5).await;
            pace.tick().await;
        }
    });
    let killing = tokio::task::spawn_blocking(move || kill_those_who_build(&place));
    let said = killing.await.unwrap();
    over.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    let looks = reader.await.unwrap();
    let generations = store
        .views()
        .unwrap()
        .generations(Tally::NAME)
        .await
        .unwrap();
    assert_eq!(
        generations.iter().map(|of| of.phase).collect::<Vec<_>>(),
        [Phase::Kept, Phase::Live]
    );
    let db = Annals::on(Arc::clone(&store));
    let db = db
        .with(ViewSetup::<Tally>::new().options(build_options()))
        .start()
        .await
        .unwrap();
    caught_up::<Tally>(&db).await;
    let history = history(&*store).await;
    assert_eq!(rows::<Tally>(&db, None).await, replay(&history));
    db.stop().await;
    let rung = said.iter().filter(|line| *line == "rung").count();
    println!(
        "20 kills of those who build in {:.1} s: {looks} looks, {} events appended meanwhile, \
         {rung} calls of the reactor",
        began.elapsed().as_secs_f64(),
        history.len() as u64 - events(),
    );
    assert_eq!(rung, 0, "a reactor was called in a rebuild");
}
