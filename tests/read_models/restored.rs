//! A log that is not the one that a view has seen: it was restored from a backup, or it is another
//! one. The view stops, and says what to do; its rows stay as they were.

use std::sync::Arc;
use std::time::Duration;

use annals::Store;
use annals::prelude::*;
use annals::projections::StartError;
use annals_core::conformance::Dice;
use annals_core::conformance::faulty::{FaultyStore, StoreFault};

use crate::fixture::SharedLogs;
use crate::oracle::{Tally, append, caught_up, history, options, program, replay, rows};

/// A store that is asked as it is.
#[derive(Debug)]
struct NoFault;

impl StoreFault for NoFault {}

/// A log, and a view of it in a place of its own, that have seen the same.
struct Shop<'a>(&'a dyn SharedLogs);

impl Shop<'_> {
    async fn open(&self, log: &str) -> Arc<dyn Store> {
        self.0.place(log).await.open().await
    }

    /// 100 events, a copy of them, 50 events more; the view has seen them all.
    async fn with_a_backup(fixture: &dyn SharedLogs) -> Shop<'_> {
        let shop = Shop(fixture);
        shop.happens(100, 1).await;
        fixture.copy("log", "backup").await;
        shop.happens(50, 2).await;
        let db = shop.program().await.unwrap();
        caught_up::<Tally>(&db).await;
        db.stop().await;
        shop
    }

    async fn happens(&self, events: u64, dice: u64) {
        append(&*self.open("log").await, &mut Dice::new(dice), 10, events).await;
    }

    async fn program(&self) -> Result<Program, StartError> {
        let views = FaultyStore::new(self.open("views").await, NoFault);
        let db = Annals::on(self.open("log").await);
        db.with(ViewSetup::<Tally>::new().options(options()))
            .views_in(views)
            .start()
            .await
    }

    /// Why the view does not go on.
    async fn stopped_by(&self) -> String {
        let db = self.program().await.unwrap();
        let before = rows::<Tally>(&db, None).await;
        let head = db
            .store()
            .head(annals::Partition(0))
            .await
            .unwrap()
            .visible
            .next();
        let beyond =
            Token::new(db.store().id()).with(annals::Partition(0), head.max(Position::new(1_000)));
        let wait = db
            .view::<Tally>()
            .get("000")
            .at_least(beyond)
            .within(Duration::from_millis(500));
        let error = wait.await.unwrap_err().to_string();
        assert_eq!(rows::<Tally>(&db, None).await, before, "nothing is changed");
        db.stop().await;
        error
    }
}

const WHAT_TO_DO: &str = "rebuild the view `tally`; if not, open the right one";

pub(crate) async fn a_restored_log_stops_the_view(fixture: &dyn SharedLogs) {
    let shop = Shop::with_a_backup(fixture).await;
    fixture.copy("backup", "log").await;
    let error = shop.stopped_by().await;
    assert!(
        error.contains("the log ends at 100 and the checkpoint is at 150"),
        "{error}"
    );
    assert!(error.contains(WHAT_TO_DO), "{error}");
}

pub(crate) async fn a_restored_log_that_went_on_needs_a_rebuild(fixture: &dyn SharedLogs) {
    let shop = Shop::with_a_backup(fixture).await;
    fixture.copy("backup", "log").await;
    shop.happens(80, 3).await;
    let error = shop.stopped_by().await;
    assert!(
        error.contains("the event at 150 is not the one that was read there"),
        "{error}"
    );
    assert!(error.contains(WHAT_TO_DO), "{error}");

    // What it says helps.
    let db = shop.program().await.unwrap();
    db.rebuild::<Tally>()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    caught_up::<Tally>(&db).await;
    let expected = replay(&history(&*shop.open("log").await).await);
    assert_eq!(rows::<Tally>(&db, None).await, expected);
    db.stop().await;
}

pub(crate) async fn another_log_under_the_same_address_is_refused(fixture: &dyn SharedLogs) {
    let shop = Shop::with_a_backup(fixture).await;
    let other = shop.open("other").await;
    append(&*other, &mut Dice::new(4), 10, 200).await;
    drop(other);
    fixture.copy("other", "log").await;
    let error = shop.program().await.unwrap_err();
    assert!(
        matches!(error, StartError::OtherLog { name: "tally" }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("open the log it belongs to, or give it another name or version"),
        "{error}"
    );
}

pub(crate) async fn a_view_restored_with_its_log_continues(fixture: &dyn SharedLogs) {
    for (events, dice) in [(100, 1), (50, 2), (70, 3)] {
        let store = fixture.place("log").await.open().await;
        append(&*store, &mut Dice::new(dice), 10, events).await;
        let db = program::<Tally>(&store, options()).await;
        caught_up::<Tally>(&db).await;
        assert_eq!(
            rows::<Tally>(&db, None).await,
            replay(&history(&*store).await)
        );
        db.stop().await;
        drop((db, store));
        match events {
            100 => fixture.copy("log", "backup").await,
            _ => fixture.copy("backup", "log").await,
        }
    }
}
