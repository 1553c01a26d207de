//! The log gets another incarnation under living processes: by a crash that takes back what was not
//! flushed, by a restore, and by a fail-over to a standby that lags. Each event is always read
//! under its own stream and type, and nothing is written on a belief of the lost incarnation.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod named;
mod server;

use annals_core::{
    AppendError, EventStore, Expected, Failure, Log, Partition, Position, Version, Violation,
};
use annals_postgres::{PostgresStore, sqlx};
use named::{all_named, append, named};
use server::{Schema, connection};
use sqlx::Connection;

async fn run(schema: &Schema, statements: &str) {
    sqlx::raw_sql(schema.sql(statements))
        .execute(&mut connection().await)
        .await
        .unwrap();
}

/// The end of an incarnation: what comes after `position` is gone, with every name that came with
/// it, and its numbers are given again. The sessions live on, as with a pooler.
async fn rewind(schema: &Schema, position: u64) {
    run(
        schema,
        &format!(
            "delete from annals.event where position > {position};
             delete from annals.stream where key > (select max(stream) from annals.event);
             delete from annals.kind where key > (select max(kind) from annals.event);
             delete from annals.category
             where key > (select max(category) from annals.kind);
             select setval(
                 pg_get_serial_sequence('annals.stream', 'key'),
                 (select max(key) from annals.stream)
             )"
        ),
    )
    .await;
}

/// Ends the connections of a store that is known by this name, and waits until they are gone.
async fn cut_off(name: &str) {
    let cut = "select pg_terminate_backend(pid, 10000) from pg_stat_activity \
        where application_name = $1";
    sqlx::query(cut)
        .bind(name)
        .execute(&mut connection().await)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_writer_whose_history_was_rewound_writes_under_new_names() {
    let schema = Schema::new();
    let old = schema.store().await;
    append(&old, "account-1", "account.opened").await;
    append(&old, "purse-1", "purse.lost").await;
    rewind(&schema, 1).await;
    let new = schema.store().await;
    append(&new, "cart-1", "cart.opened").await;
    // The position is one that the old writer has seen with another event.
    append(&old, "purse-1", "purse.opened").await;
    append(&old, "purse-1", "purse.lost").await;
    for store in [&old, &new, &schema.store().await] {
        assert_eq!(all_named(store).await.len(), 4);
    }
}

#[tokio::test]
async fn an_append_decided_on_a_lost_history_is_refused() {
    let schema = Schema::new();
    // So that nothing but the append notices.
    let hour = std::time::Duration::from_secs(3600);
    let options = schema.options().poll_interval(hour);
    let old = PostgresStore::connect_with(options).await.unwrap();
    append(&old, "account-1", "account.opened").await;
    append(&old, "account-1", "account.credited").await;
    all_named(&old).await;
    let before = old.incarnation();
    rewind(&schema, 1).await;
    append(&schema.store().await, "account-1", "account.closed").await;
    let mut stale =
        named("account-1", "account.debited".into()).expecting(Expected::ActiveAt(Version::new(2)));
    stale.decided_on = Some(before);
    let refused = old.append(stale.clone()).await.unwrap_err();
    assert!(matches!(&refused, AppendError::Conflict(_)), "{refused:?}");
    assert_ne!(old.incarnation(), before);
    // Decided again, on what is there now, it goes through.
    stale.decided_on = Some(old.incarnation());
    assert_eq!(
        old.append(stale).await.unwrap().last().version,
        Version::new(3)
    );
    assert_eq!(all_named(&old).await.len(), 3);
}

#[tokio::test]
async fn a_staged_append_decided_on_a_lost_history_is_refused() {
    let schema = Schema::new();
    // So that nothing but the append notices.
    let hour = std::time::Duration::from_secs(3600);
    let options = schema.options().poll_interval(hour);
    let old = PostgresStore::connect_with(options).await.unwrap();
    append(&old, "account-1", "account.opened").await;
    append(&old, "account-1", "account.credited").await;
    all_named(&old).await;
    let before = old.incarnation();
    rewind(&schema, 1).await;
    append(&schema.store().await, "account-1", "account.closed").await;
    let stale = named("account-1", "account.debited".into())
        .expecting(Expected::ActiveAt(Version::new(2)))
        .decided_on(before);
    let mut connection = connection().await;
    let mut transaction = connection.begin().await.unwrap();
    let refused = old.append_in(&mut transaction, stale.clone()).await;
    assert!(
        matches!(
            &refused,
            Err(AppendError::Conflict(violations))
                if matches!(violations[..], [Violation::Incarnation { decided_on, .. }]
                    if decided_on == before)
        ),
        "{refused:?}"
    );
    assert_ne!(old.incarnation(), before);
    // Decided again, on what is there now, it goes through in the same transaction.
    let again = stale.decided_on(old.incarnation());
    let staged = old.append_in(&mut transaction, again).await.unwrap();
    let appended = old.commit(transaction, [staged]).await.unwrap();
    assert_eq!(appended[0].last().version, Version::new(3));
    assert_eq!(all_named(&old).await.len(), 3);
}

#[tokio::test]
async fn events_are_not_staged_in_another_log() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut connection = connection().await;
    let mut transaction = connection.begin().await.unwrap();
    // As a database looks that holds another log: only this transaction sees it.
    sqlx::raw_sql(schema.sql("update annals.log set id = gen_random_uuid()"))
        .execute(&mut *transaction)
        .await
        .unwrap();
    let refused = store
        .append_in(
            &mut transaction,
            named("account-1", "account.opened".into()),
        )
        .await;
    assert!(
        matches!(
            &refused,
            Err(AppendError::Store(error))
                if error.failure() == Failure::Invalid
                    && error.to_string().contains(
                        "in a database with another log; begin it in the database of the store"
                    )
        ),
        "{refused:?}"
    );
    transaction.rollback().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let opened = named("account-1", "account.opened".into());
    let staged = store.append_in(&mut transaction, opened).await.unwrap();
    let appended = store.commit(transaction, [staged]).await.unwrap();
    assert_eq!(appended[0].last().position, Position::new(1));
}

#[tokio::test]
async fn a_repetition_is_answered_in_another_incarnation() {
    let schema = Schema::new();
    let store = schema.store().await;
    append(&store, "account-1", "account.opened").await;
    let before = store.incarnation();
    let debit = named("account-1", "account.debited".into())
        .expecting(Expected::ActiveAt(Version::new(1)))
        .decided_on(before);
    let first = store.append(debit.clone()).await.unwrap();
    append(&store, "account-1", "account.credited").await;
    rewind(&schema, 2).await;
    for _ in 0..2 {
        let again = store.append(debit.clone()).await.unwrap();
        assert!(again.was_repeated());
        assert_eq!(again.events(), first.events());
    }
    append(&store, "account-1", "account.credited").await;
    assert_ne!(store.incarnation(), before);
    assert!(store.append(debit).await.unwrap().was_repeated());
}

#[tokio::test]
async fn a_reader_of_another_history_has_other_names() {
    let schema = Schema::new();
    let (options, name) = schema.named(2);
    let reader = PostgresStore::connect_with(options).await.unwrap();
    append(&reader, "account-1", "account.opened").await;
    append(&reader, "purse-1", "purse.lost").await;
    assert_eq!(all_named(&reader).await.len(), 2);
    rewind(&schema, 1).await;
    cut_off(&name).await;
    append(&schema.store().await, "cart-1", "cart.opened").await;
    assert_eq!(all_named(&reader).await.len(), 2);
    assert_eq!(
        reader.head(Partition(0)).await.unwrap().visible,
        Position::new(2)
    );
}

#[tokio::test]
async fn another_log_in_the_same_place_is_refused() {
    let schema = Schema::new();
    let (options, name) = schema.named(2);
    let store = PostgresStore::connect_with(options).await.unwrap();
    append(&store, "account-1", "account.opened").await;
    run(&schema, "update annals.log set id = gen_random_uuid()").await;
    cut_off(&name).await;
    let refused = store
        .append(named("account-1", "account.closed".into()))
        .await;
    assert!(
        matches!(
            &refused,
            Err(AppendError::Store(error)) if error.to_string().contains("another log")
        ),
        "{refused:?}"
    );
    let refused = store.head(Partition(0)).await.unwrap_err();
    assert!(refused.to_string().contains("another log"), "{refused:?}");
    assert!(
        refused.to_string().contains("open the store again"),
        "{refused:?}"
    );
    let again = schema.store().await;
    append(&again, "account-1", "account.closed").await;
}
