//! Rows that together are longer than a page of a store: none is taken for one that is missing.

use std::cell::Cell;
use std::time::Duration;

use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{
    Annals, Append, CommitError, History, NewEvent, PAGE_BYTES_MAX, Partition, Position, ReadRows,
    Recorded, RowPlace, RowsBy, RowsPage, StreamId, Token, ViewStore,
};
use annals_projections::{
    Handlers, Options, Poison, Program, Project, ReadModels, Row, View, ViewSetup, With,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, deposited, options};
use super::test_store::{TestStore, store};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Eight of these are longer than `PAGE_BYTES_MAX`.
const LONG: usize = 700_000;
const ACCOUNTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Long {
    events: u64,
    text: String,
}

impl Project<AccountEvent> for Long {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        row.text = "x".repeat(LONG);
        Ok(())
    }
}

impl View for Long {
    const NAME: &'static str = "long";
    const HISTORY: History = History::Versions;
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

/// One event of each account, in one append.
async fn append(store: &TestStore) -> Position {
    append_of(store, &ACCOUNTS).await
}

async fn append_of(store: &TestStore, accounts: &[&str]) -> Position {
    let now = Annals::on(store.handle()).clock().now();
    let mut append = Append::default();
    append.events = accounts
        .iter()
        .map(|account| {
            let stream = StreamId::new(format!("account-{account}")).unwrap();
            (stream, NewEvent::of(&deposited(1)).unwrap().at(now))
        })
        .collect();
    let appended = store.append(append).await.unwrap();
    appended.events().last().unwrap().position
}

async fn start(store: &TestStore, options: Options) -> Program {
    let setup = ViewSetup::<Long>::new().options(options);
    let db = Annals::on(store.handle());
    db.with(setup).start().await.unwrap()
}

async fn counted(store: &TestStore, db: &Program, position: Position) -> Vec<Option<u64>> {
    let view = db.view::<Long>();
    let token = Token::new(store.id()).with(Partition(0), position);
    view.wait_for(token, TIMEOUT).await.unwrap();
    let rows = view.many(ACCOUNTS).await.unwrap();
    rows.into_iter()
        .map(|row| row.map(|row| row.events))
        .collect()
}

pub(crate) async fn a_batch_goes_on_with_all_of_its_rows() {
    let store = store().await;
    let db = start(&store, options()).await;
    let position = append(&store).await;
    assert_eq!(counted(&store, &db, position).await, [Some(1); 8]);
    db.stop().await;
    // Nothing is at hand, so what the batch needs is read.
    let position = append(&store).await;
    let db = start(&store, options()).await;
    assert_eq!(counted(&store, &db, position).await, [Some(2); 8]);
    db.stop().await;
}

pub(crate) async fn a_build_is_compared_with_all_of_its_rows() {
    let store = store().await;
    let position = append(&store).await;
    let db = start(&store, options().verified_keys(8)).await;
    assert_eq!(counted(&store, &db, position).await, [Some(1); 8]);
    db.stop().await;
}

/// A store that says of each page of named rows that more may follow, and takes a step of the
/// generation before it is asked for that.
#[derive(Debug)]
struct GoesOn;

#[async_trait]
impl StoreFault for GoesOn {
    async fn read_rows(
        &self,
        views: &dyn ViewStore,
        read: ReadRows,
    ) -> Result<RowsPage, CommitError> {
        let is_of_keys = matches!(read.by, RowsBy::Keys(_));
        let is_first = read.after.is_none();
        let mut page = views.read_rows(read).await?;
        if is_of_keys && page.next.is_none() {
            let last = page.rows.last().map(|row| row.key.clone());
            let entry = String::new();
            page.next = last.map(|key| RowPlace { entry, key });
        }
        if !is_first {
            let all = page.checkpoints.iter_mut();
            all.for_each(|of| of.position = of.position.next());
        }
        Ok(page)
    }
}

pub(crate) async fn a_build_that_goes_on_meanwhile_is_compared() {
    let store = store().await;
    append(&store).await;
    let db = Annals::on(FaultyStore::new(store.handle(), GoesOn));
    let setup = ViewSetup::<Long>::new().options(options().verified_keys(8));
    let db = db.with(setup).start().await.unwrap();
    assert_eq!(db.status()[0].unverified, None);
    db.stop().await;
}

thread_local! {
    /// How often an event was folded.
    static FOLDS: Cell<usize> = const { Cell::new(0) };
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counted {
    events: u64,
}

impl Project<AccountEvent> for Counted {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        FOLDS.set(FOLDS.get() + 1);
        row.events += 1;
        Ok(())
    }
}

impl View for Counted {
    const NAME: &'static str = "counted";
    const HISTORY: History = History::Versions;
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

pub(crate) async fn a_page_of_history_makes_only_its_own_versions() {
    let store = store().await;
    let stream = StreamId::new("account-a").unwrap();
    let events = (0..500).map(|_| NewEvent::of(&deposited(1)).unwrap());
    let appended = store.append(Append::new(stream, events)).await.unwrap();
    // It is built in one batch, so it keeps one version of the row.
    let setup = ViewSetup::<Counted>::new().options(options().verified_keys(0));
    let db = Annals::on(store.handle()).with(setup);
    let db = db.start().await.unwrap();
    let view = db.view::<Counted>();
    let end = appended.last().position;
    let token = Token::new(store.id()).with(Partition(0), end);
    view.wait_for(token, TIMEOUT).await.unwrap();
    for (after, folds) in [(0, 3), (5, 8)] {
        FOLDS.set(0);
        let page = view.history("a").after(Position::new(after)).limit(2).await;
        let page = page.unwrap();
        let counts = page.versions.iter().map(|of| of.value.as_ref().unwrap());
        let counts: Vec<_> = counts.map(|row| row.events).collect();
        assert_eq!(counts, [after + 1, after + 2]);
        assert_eq!(page.next, Some(Position::new(after + 2)));
        // The next version ends the last one of the page.
        assert_eq!(FOLDS.get(), folds);
    }
    db.stop().await;
}

/// How long each page is, in rows that are `LONG` or longer.
#[track_caller]
fn are_bounded(pages: &[usize], rows: usize, of: &str) {
    assert_eq!(pages.iter().sum::<usize>(), rows, "{of}: {pages:?}");
    let most = PAGE_BYTES_MAX.div_ceil(LONG);
    assert!(pages.iter().all(|rows| *rows <= most), "{of}: {pages:?}");
}

pub(crate) async fn pages_of_the_past_end_where_pages_of_the_present_do() {
    let store = store().await;
    let db = start(&store, options()).await;
    let mut position = Position::START;
    for _ in 0..2 {
        position = append(&store).await;
        counted(&store, &db, position).await;
    }
    let view = db.view::<Long>();

    let mut after = None;
    let mut pages = Vec::new();
    let mut keys = Vec::new();
    loop {
        let page = view.rows().after(after).as_of(position).await.unwrap();
        assert!(page.rows.iter().all(|row| row.value.events == 2));
        pages.push(page.rows.len());
        keys.extend(page.rows.into_iter().map(|row| row.key));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    are_bounded(&pages, 8, "rows as of");
    assert_eq!(keys, ACCOUNTS);

    let mut after = None;
    let mut pages = Vec::new();
    let mut keys = Vec::new();
    loop {
        let between = view.changed_between(8, position).after(after);
        let page = between.await.unwrap();
        // Both what a row was and what it is are in the page.
        pages.push(2 * page.changes.len());
        keys.extend(page.changes.into_iter().map(|change| change.key));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    are_bounded(&pages, 16, "changes");
    assert_eq!(keys, ACCOUNTS);

    for _ in 0..7 {
        position = append_of(&store, &["a"]).await;
        let token = Token::new(store.id()).with(Partition(0), position);
        view.wait_for(token, TIMEOUT).await.unwrap();
    }
    let mut after = Position::START;
    let mut pages = Vec::new();
    let mut counts = Vec::new();
    loop {
        let page = view.history("a").after(after).await.unwrap();
        pages.push(page.versions.len());
        let values = page.versions.into_iter().filter_map(|of| of.value);
        counts.extend(values.map(|row| row.events));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    are_bounded(&pages, 9, "history");
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    db.stop().await;
}
