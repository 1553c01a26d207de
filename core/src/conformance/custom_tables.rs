//! Tables of the application's own: they change with the steps of a worker, the switch and the end
//! of a generation, or not at all.

use std::marker::PhantomData;

use async_trait::async_trait;

use super::fixture::TablesFixture;
use super::inline::{append_after, carry, row, said, standing, step_over};
use super::view_words::*;
use crate::custom_tables::{CustomTables, InTransaction};
use crate::error::{Failure, StoreError};
use crate::generation::GenerationSpec;
use crate::lease::Leases;
use crate::store::{EventStore, Store};
use crate::{
    CommitError, GenerationStore, Phase, Position, RowAdvance, RowStore, Version, ViewCommit,
};

type ConnectionOf<F> = <<F as TablesFixture>::Store as CustomTables>::Connection;

/// Runs these statements as one part each; a part whose statement fails is undone.
struct Parts<F> {
    parts: Vec<&'static str>,
    then: Then,
    of: PhantomData<fn(F)>,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Succeed,
    Fail,
    Panic,
    /// Says that it went only so far.
    StopAt(u64),
    /// Says of a row how far it is taken.
    Takes(&'static str),
}

fn doing<F: TablesFixture>(parts: &[&'static str], then: Then) -> Box<Parts<F>> {
    Box::new(Parts {
        parts: parts.to_vec(),
        then,
        of: PhantomData,
    })
}

impl<F: TablesFixture> Parts<F> {
    async fn run(&self, connection: &mut ConnectionOf<F>) -> Result<(), StoreError> {
        for statements in &self.parts {
            F::Store::mark(connection).await?;
            match F::run(connection, statements).await {
                Ok(()) => F::Store::keep(connection).await?,
                Err(_) => F::Store::undo(connection).await?,
            }
        }
        match self.then {
            Then::Fail => Err(StoreError::new(Failure::Invalid, "changed my mind")),
            Then::Panic => panic!("out of lamps"),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl<F: TablesFixture> InTransaction<ConnectionOf<F>, ViewCommit> for Parts<F> {
    async fn run(
        &mut self,
        connection: &mut ConnectionOf<F>,
        step: &mut ViewCommit,
    ) -> Result<(), StoreError> {
        match self.then {
            Then::StopAt(position) => step.to.position = at(position),
            Then::Takes(key) => {
                step.rows.push(set(key, "by the work", &[]));
                step.advances.push(RowAdvance {
                    key: key.into(),
                    from: Version::NONE,
                    to: Version::FIRST,
                });
            }
            _ => {}
        }
        Parts::run(self, connection).await
    }
}

#[async_trait]
impl<F: TablesFixture> InTransaction<ConnectionOf<F>> for Parts<F> {
    async fn run(
        &mut self,
        connection: &mut ConnectionOf<F>,
        (): &mut (),
    ) -> Result<(), StoreError> {
        Parts::run(self, connection).await
    }
}

/// A worker on a generation, and the one table of the application.
struct Bench<'a, F: TablesFixture> {
    fixture: &'a F,
    store: F::Store,
    worker: Worker,
}

impl<'a, F: TablesFixture> Bench<'a, F> {
    async fn begin(fixture: &'a F, spec: GenerationSpec) -> Bench<'a, F> {
        let store = fixture.open().await;
        let worker = Worker::begin(&store, spec).await;
        let mut bench = Bench {
            fixture,
            store,
            worker,
        };
        bench
            .takes(0, &["create table totals (n integer primary key)"])
            .await;
        bench
    }

    async fn commit(
        &self,
        step: ViewCommit,
        parts: &[&'static str],
        then: Then,
    ) -> Result<(), CommitError> {
        self.store.commit_with(step, doing::<F>(parts, then)).await
    }

    async fn tries(&self, to: u64, parts: &[&'static str], then: Then) -> Result<(), CommitError> {
        self.commit(self.worker.step(to), parts, then).await
    }

    /// A step that must be taken.
    async fn takes(&mut self, to: u64, parts: &[&'static str]) {
        self.tries(to, parts, Then::Succeed).await.unwrap();
        self.worker.at = at(to);
    }

    /// The rows of the table, and the checkpoint of the slot.
    async fn found(&self) -> (Option<i64>, u64) {
        let rows = self.fixture.rows(&self.store, "totals").await;
        let checkpoints = self.store.checkpoints(self.worker.id()).await.unwrap();
        (rows, checkpoints[0].position.get())
    }
}

const ONE: &[&str] = &["insert into totals values (1)"];
const TWO: &[&str] = &["insert into totals values (2)"];

pub async fn and_the_checkpoint_change_together<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(fixture, spec("totals", &[])).await;
    bench
        .takes(
            3,
            &[
                "insert into totals values (1)",
                "insert into totals values (2)",
            ],
        )
        .await;
    assert_eq!(bench.found().await, (Some(2), 3));
}

pub async fn lose_a_part_that_fails_and_keep_the_others<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(fixture, spec("totals", &[])).await;
    let parts = [
        "insert into totals values (1)",
        "insert into totals values (2); insert into totals values (1)",
        "nonsense",
    ];
    bench.takes(3, &parts).await;
    assert_eq!(bench.found().await, (Some(1), 3));
}

pub async fn do_not_change_by_work_that_fails_or_panics<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(fixture, spec("totals", &[])).await;
    for (then, says) in [
        (Then::Fail, "changed my mind"),
        (Then::Panic, "panicked: out of lamps"),
    ] {
        let error = bench.tries(3, ONE, then).await.unwrap_err();
        let CommitError::Store(error) = error else {
            panic!("{then:?}: {error:?}")
        };
        assert!(error.to_string().contains(says), "{then:?}: {error}");
        assert_eq!(
            error.failure(),
            Failure::Invalid,
            "{then:?}: trying again would not help"
        );
        assert_eq!(bench.found().await, (Some(0), 0), "{then:?}");
    }
    bench.takes(3, ONE).await;
    assert_eq!(bench.found().await, (Some(1), 3));
}

pub async fn are_not_changed_by_a_fenced_worker<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(fixture, spec("totals", &[])).await;
    bench.takes(3, ONE).await;
    bench.worker.at = Position::START;
    // Work that is run all the same would be seen to fail.
    assert_fenced(
        &bench.tries(4, TWO, Then::Fail).await.unwrap_err(),
        &bench.worker,
    );
    bench.worker.at = at(3);
    bench
        .store
        .release_lease(&bench.worker.lease)
        .await
        .unwrap();
    assert_fenced(
        &bench.tries(4, TWO, Then::Fail).await.unwrap_err(),
        &bench.worker,
    );
    let id = bench.worker.id();
    bench.store.drop_generation(id).await.unwrap();
    assert_gone(bench.tries(4, TWO, Then::Fail).await, id);
    assert_eq!(fixture.rows(&bench.store, "totals").await, Some(1));
}

pub async fn come_with_a_step_that_their_work_may_change<F: TablesFixture>(fixture: &F) {
    let bench = Bench::begin(fixture, spec("totals", &[])).await;
    bench.tries(9, ONE, Then::StopAt(5)).await.unwrap();
    assert_eq!(bench.found().await, (Some(1), 5));
}

pub async fn do_not_change_with_a_step_that_can_never_succeed<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(fixture, spec("totals", &[])).await;
    let mut first = bench.worker.step(3);
    first.versions = vec![row_version("1", 0, 2, Some("one"))];
    bench.commit(first, ONE, Then::Succeed).await.unwrap();
    bench.worker.at = at(3);
    let mut again = bench.worker.step(4);
    again.versions = vec![
        row_version("2", 3, 4, Some("two")),
        row_version("1", 0, 2, Some("one")),
    ];
    let error = bench.commit(again, TWO, Then::Succeed).await.unwrap_err();
    let says = "key `1` has a version that ends at 2 already";
    assert!(
        matches!(&error, CommitError::Invalid(invalid) if invalid.to_string() == says),
        "{error:?}"
    );
    for (parts, then) in [(TWO, Then::StopAt(2)), (TWO, Then::Takes("1"))] {
        let error = bench.tries(4, parts, then).await.unwrap_err();
        assert!(
            matches!(error, CommitError::Invalid(_)),
            "{then:?}: {error:?}"
        );
    }
    assert_eq!(bench.found().await, (Some(1), 3));
    let versions = bench
        .store
        .row_versions(bench.worker.id(), "2", (Position::START, Position::MAX), 9)
        .await
        .unwrap();
    assert_eq!(versions, []);
}

pub async fn do_not_change_by_work_that_ends_the_transaction<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(fixture, spec("totals", &[])).await;
    let parts = ["insert into totals values (1)", "rollback"];
    let error = bench.tries(3, &parts, Then::Succeed).await.unwrap_err();
    assert!(matches!(error, CommitError::Store(_)), "{error:?}");
    assert_eq!(bench.found().await, (Some(0), 0));
    bench.takes(3, ONE).await;
    assert_eq!(
        bench.found().await,
        (Some(1), 3),
        "no other step is harmed by it"
    );
}

pub async fn leave_rows_of_inline_views_as_appends_made_them<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(
        fixture,
        GenerationSpec {
            inline: true,
            ..spec("totals", &[])
        },
    )
    .await;
    let generation = bench.worker.id();
    bench.store.append(append_after(0, 1)).await.unwrap();
    let first = step_over(&bench.worker, 1, (0, 1), "one");
    bench.commit(first, ONE, Then::Succeed).await.unwrap();
    bench.worker.at = at(1);
    assert_eq!(standing(&bench.store, generation).await, said("one", 1));
    carry(
        &bench.store,
        append_after(1, 2),
        row(generation, 1, "three"),
    )
    .await
    .unwrap();
    // The worker read the row before that append. What its work adds is new.
    let late = step_over(&bench.worker, 2, (1, 2), "two");
    bench.commit(late, TWO, Then::Takes("2")).await.unwrap();
    bench.worker.at = at(2);
    assert_eq!(standing(&bench.store, generation).await, said("three", 3));
    let inline = Store::inline_views(&bench.store).expect("inline views");
    let added = inline
        .read_versioned(generation, &["2".into()])
        .await
        .unwrap();
    assert_eq!(
        (added[0].at, added[0].value.as_deref()),
        (Version::FIRST, Some(&b"by the work"[..]))
    );
    assert_eq!(bench.found().await, (Some(2), 2));
    // This one read it at an older version, and goes less far.
    let elsewhere = step_over(&bench.worker, 3, (1, 4), "never");
    let error = bench
        .commit(elsewhere, &["insert into totals values (3)"], Then::Succeed)
        .await
        .unwrap_err();
    assert_fenced(&error, &bench.worker);
    assert_eq!(standing(&bench.store, generation).await, said("three", 3));
    assert_eq!(bench.found().await, (Some(2), 2));
}

pub async fn come_and_go_with_a_switch_and_a_drop<F: TablesFixture>(fixture: &F) {
    let mut bench = Bench::begin(fixture, spec("totals", &[])).await;
    let id = bench.worker.id();
    let work = |parts: &[&'static str], then| doing::<F>(parts, then);
    let publish = ["create view published as select * from totals"];
    assert!(
        bench
            .store
            .switch_with(id, work(&publish, Then::Fail))
            .await
            .is_err()
    );
    assert_eq!(
        bench.store.live_generation("totals", 1).await.unwrap(),
        None
    );
    assert_eq!(fixture.rows(&bench.store, "published").await, None);
    bench
        .store
        .switch_with(id, work(&publish, Then::Succeed))
        .await
        .unwrap();
    assert_eq!(
        bench
            .store
            .live_generation("totals", 1)
            .await
            .unwrap()
            .map(|of| of.phase),
        Some(Phase::Live)
    );
    bench.takes(1, ONE).await;
    assert_eq!(fixture.rows(&bench.store, "published").await, Some(1));
    let drop = ["drop view published; drop table totals"];
    let error = bench
        .store
        .drop_with(id, work(&drop, Then::Succeed))
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommitError::Invalid(_)),
        "readers depend on it: {error:?}"
    );
    let other = bench
        .store
        .begin_generation(bench.worker.generation.spec.clone())
        .await
        .unwrap();
    bench
        .store
        .switch_with(other.id, work(&[], Then::Succeed))
        .await
        .unwrap();
    assert!(
        bench
            .store
            .drop_with(id, work(&drop, Then::Fail))
            .await
            .is_err()
    );
    assert_eq!(bench.found().await, (Some(1), 1));
    bench
        .store
        .drop_with(id, work(&drop, Then::Succeed))
        .await
        .unwrap();
    assert_eq!(fixture.rows(&bench.store, "totals").await, None);
    // Dropping what is gone changes nothing.
    bench
        .store
        .drop_with(
            id,
            work(&["create table totals (n integer)"], Then::Succeed),
        )
        .await
        .unwrap();
    assert_eq!(fixture.rows(&bench.store, "totals").await, None);
    assert_gone(bench.store.checkpoints(id).await, id);
}
