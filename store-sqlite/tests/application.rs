//! `append_in`: an application's own tables and its events change together.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::pin::pin;
use std::task::{Context, Waker};

use annals_core::{
    Append, AppendError, Condition, EventStore, Expected, Failure, GenerationSpec, GenerationStore,
    InlineRow, InlineViews, Log, NewEvent, Partition, Query, StreamId, Version,
};
use annals_sqlite::{AppendTransaction, SqliteStore, rusqlite};

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("changed my mind")]
    Mind,
}

fn placed(n: u64) -> Append {
    let event = NewEvent::json("order.placed", n.to_string().into_bytes());
    Append::default().event(StreamId::new("order-1").unwrap(), event)
}

fn count(transaction: &AppendTransaction<'_>) -> Result<i64, rusqlite::Error> {
    transaction
        .connection()
        .query_row("select count(*) from my_orders", [], |row| row.get(0))
}

fn insert(transaction: &AppendTransaction<'_>, n: u64) -> Result<usize, rusqlite::Error> {
    transaction
        .connection()
        .execute("insert into my_orders values (?1)", [n.cast_signed()])
}

async fn store() -> SqliteStore {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let make = |transaction: &mut AppendTransaction<'_>| {
        Ok::<_, Failed>(
            transaction
                .connection()
                .execute_batch("create table my_orders (n integer primary key)")?,
        )
    };
    store.append_in(make).await.unwrap();
    store
}

async fn found(store: &SqliteStore) -> (i64, u64) {
    let rows = store
        .append_in(|transaction| Ok::<_, Failed>(count(transaction)?))
        .await
        .unwrap();
    (rows, store.head(Partition(0)).await.unwrap().visible.get())
}

#[tokio::test]
async fn who_ends_the_transaction_of_others_is_told_so() {
    let store = store().await;
    store
        .append_in(|transaction| Ok::<_, Failed>(insert(transaction, 1)?))
        .await
        .unwrap();
    // The writer is held until both wait, so that they are in one transaction.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, began) = tokio::sync::oneshot::channel();
    let held = tokio::spawn({
        let store = store.clone();
        let hold = move |_: &mut AppendTransaction<'_>| {
            let _ = begun.send(());
            let _ = released.recv();
            Ok::<_, Failed>(())
        };
        async move { store.append_in(hold).await }
    });
    began.await.unwrap();
    let mut innocent = pin!(store.append(placed(1)));
    let mut guilty = pin!(store.append_in(|transaction| {
        let statement = "insert or rollback into my_orders values (1)";
        Ok::<_, Failed>(transaction.connection().execute(statement, [])?)
    }));
    let mut context = Context::from_waker(Waker::noop());
    assert!(innocent.as_mut().poll(&mut context).is_pending());
    assert!(guilty.as_mut().poll(&mut context).is_pending());
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    assert_eq!(innocent.await.unwrap().last().position.get(), 1);
    let refused = guilty.await.unwrap_err();
    let Failed::Append(AppendError::Store(error)) = refused else {
        panic!("{refused:?}")
    };
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "the application's part of the transaction ended it");
    assert_eq!(found(&store).await, (1, 1));
}

#[tokio::test]
async fn an_innocent_transaction_is_not_undone_with_its_neighbour() {
    let store = store().await;
    store
        .append_in(|transaction| Ok::<_, Failed>(insert(transaction, 1)?))
        .await
        .unwrap();
    // The writer is held until all wait, so that they could be in one transaction.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, began) = tokio::sync::oneshot::channel();
    let held = tokio::spawn({
        let store = store.clone();
        let hold = move |_: &mut AppendTransaction<'_>| {
            let _ = begun.send(());
            let _ = released.recv();
            Ok::<_, Failed>(())
        };
        async move { store.append_in(hold).await }
    });
    began.await.unwrap();
    let mut innocent = pin!(store.append_in(|transaction| {
        insert(transaction, 2)?;
        Ok::<_, Failed>(transaction.append(placed(1))?)
    }));
    let mut guilty = pin!(store.append_in(|transaction| {
        let statement = "insert or rollback into my_orders values (1)";
        Ok::<_, Failed>(transaction.connection().execute(statement, [])?)
    }));
    let mut context = Context::from_waker(Waker::noop());
    assert!(innocent.as_mut().poll(&mut context).is_pending());
    assert!(guilty.as_mut().poll(&mut context).is_pending());
    release.send(()).unwrap();
    held.await.unwrap().unwrap();
    assert_eq!(innocent.await.unwrap().last().position.get(), 1);
    assert!(guilty.await.is_err());
    assert_eq!(found(&store).await, (2, 1));
}

#[tokio::test]
async fn a_deferred_constraint_refuses_its_own_transaction_by_name() {
    let store = store().await;
    let make = |transaction: &mut AppendTransaction<'_>| {
        let lines = "create table my_lines (
            n integer references my_orders deferrable initially deferred)";
        Ok::<_, Failed>(transaction.connection().execute_batch(lines)?)
    };
    store.append_in(make).await.unwrap();
    let of_no_order = |transaction: &mut AppendTransaction<'_>| {
        let line = "insert into my_lines values (9)";
        transaction.connection().execute(line, [])?;
        Ok::<_, Failed>(transaction.append(placed(1))?)
    };
    let error = store.append_in(of_no_order).await.unwrap_err();
    let Failed::Append(AppendError::Store(cause)) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(cause.failure(), Failure::Invalid);
    assert_eq!(
        cause.to_string(),
        "the transaction was refused at its commit"
    );
    assert_eq!(found(&store).await, (0, 0));
}

#[tokio::test]
async fn rows_and_events_are_committed_together() {
    let store = store().await;
    let both = |transaction: &mut AppendTransaction<'_>| {
        insert(transaction, 1)?;
        let first = transaction.append(placed(1))?;
        let second = transaction
            .append(placed(2).requiring(StreamId::new("order-1").unwrap(), Expected::Exists))?;
        Ok::<_, Failed>((first.last().version.get(), second.last().version.get()))
    };
    assert_eq!(store.append_in(both).await.unwrap(), (1, 2));
    assert_eq!(found(&store).await, (1, 2));
}

#[tokio::test]
async fn an_error_undoes_rows_and_events() {
    let store = store().await;
    let fails = |transaction: &mut AppendTransaction<'_>| {
        insert(transaction, 1)?;
        transaction.append(placed(1))?;
        Err::<(), _>(Failed::Mind)
    };
    assert!(matches!(store.append_in(fails).await, Err(Failed::Mind)));
    assert_eq!(found(&store).await, (0, 0));
    // The stream and the position are as free as before.
    let appended = store.append(Append::new(
        StreamId::new("order-1").unwrap(),
        [NewEvent::json("a", b"1".as_slice())],
    ));
    let appended = appended.await.unwrap();
    assert_eq!(
        (
            appended.last().version.get(),
            appended.last().position.get()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_panic_undoes_its_rows_and_events_alone() {
    let store = store().await;
    let panics = |transaction: &mut AppendTransaction<'_>| -> Result<(), Failed> {
        insert(transaction, 1)?;
        transaction.append(placed(1))?;
        panic!("out of lamps")
    };
    let error = store.append_in(panics).await.unwrap_err();
    let Failed::Append(AppendError::Store(cause)) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(cause.failure(), Failure::Invalid);
    assert!(error.to_string().contains("out of lamps"), "{error}");
    assert_eq!(found(&store).await, (0, 0));
}

#[tokio::test]
async fn what_is_refused_leaves_the_rest_as_it_is() {
    let store = store().await;
    let goes_on = |transaction: &mut AppendTransaction<'_>| {
        insert(transaction, 1)?;
        transaction.append(placed(1))?;
        let refused = transaction
            .append(placed(2).requiring(StreamId::new("order-1").unwrap(), Expected::NoStream));
        assert!(
            matches!(refused, Err(AppendError::Conflict(_))),
            "{refused:?}"
        );
        let condition = Condition::none_matches(Query::types(["order.placed"]));
        let refused = transaction.append(placed(3).under(condition));
        assert!(
            matches!(refused, Err(AppendError::Conflict(_))),
            "{refused:?}"
        );
        let refused = transaction.append(Append::default());
        assert!(
            matches!(refused, Err(AppendError::Invalid(_))),
            "{refused:?}"
        );
        insert(transaction, 2)?;
        Ok::<_, Failed>(())
    };
    store.append_in(goes_on).await.unwrap();
    assert_eq!(found(&store).await, (2, 1));
}

#[tokio::test]
async fn a_failed_statement_of_the_application_is_its_own() {
    let store = store().await;
    let twice = |transaction: &mut AppendTransaction<'_>| {
        insert(transaction, 1)?;
        let again = insert(transaction, 1);
        assert!(again.is_err());
        transaction.append(placed(1))?;
        Ok::<_, Failed>(())
    };
    store.append_in(twice).await.unwrap();
    assert_eq!(found(&store).await, (1, 1));
}

#[tokio::test]
async fn a_transaction_that_the_application_ended_is_an_error() {
    let store = store().await;
    let ends = |transaction: &mut AppendTransaction<'_>| {
        insert(transaction, 1)?;
        transaction.append(placed(1))?;
        transaction.connection().execute_batch("rollback")?;
        Ok::<_, Failed>(())
    };
    let error = store.append_in(ends).await.unwrap_err();
    assert!(
        matches!(&error, Failed::Append(AppendError::Store(_))),
        "{error:?}"
    );
    assert_eq!(found(&store).await, (0, 0));
}

#[tokio::test]
async fn many_at_once_are_each_on_their_own() {
    let store = store().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let store = store.clone();
        tasks.spawn(async move {
            let work = move |transaction: &mut AppendTransaction<'_>| {
                insert(transaction, n)?;
                transaction.append(placed(n))?;
                if n.is_multiple_of(4) {
                    Err(Failed::Mind)
                } else {
                    Ok(())
                }
            };
            (n, store.append_in(work).await)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (n, outcome) = done.unwrap();
        assert_eq!(outcome.is_err(), n.is_multiple_of(4), "{n}: {outcome:?}");
    }
    assert_eq!(found(&store).await, (75, 75));
}

#[tokio::test]
async fn inline_rows_are_written_and_undone_with_their_append() {
    let store = store().await;
    let mut spec = GenerationSpec::new("orders", 1, store.id());
    spec.inline = true;
    let generation = store.begin_generation(spec).await.unwrap().id;
    for is_kept in [false, true] {
        let carrying = move |transaction: &mut AppendTransaction<'_>| {
            let stream = StreamId::new("order-1").unwrap();
            let mut append = placed(1).requiring(stream.clone(), Expected::Version(Version::NONE));
            let mut row = InlineRow::new(generation, stream, "1", Version::NONE);
            row.value = Some("one".into());
            append.rows.push(row);
            transaction.append(append)?;
            if is_kept { Ok(()) } else { Err(Failed::Mind) }
        };
        assert_eq!(store.append_in(carrying).await.is_ok(), is_kept);
        let found = store
            .read_versioned(generation, &["1".into()])
            .await
            .unwrap();
        let expected = is_kept.then(|| (Version::FIRST, Some("one".into())));
        assert_eq!(
            found.into_iter().map(|row| (row.at, row.value)).next(),
            expected
        );
    }
}
