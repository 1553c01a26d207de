//! Roles that may do less than the owner of the tables, with the rights that the guide names.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;

use std::time::Duration;

use annals_core::{
    Acquired, Append, AppendError, ChangeStream, Checkpoint, EventStore, Failure, FoldId,
    GenerationSpec, GenerationStore, Leases, Log, NewEvent, Partition, Position, ReadLog, ReadRows,
    RowChange, RowStore, RowsBy, Snapshot, SnapshotStore, StreamChange, StreamId, ViewCommit,
};
use annals_postgres::{Options, PostgresStore, sqlx};
use server::{Schema, connection, in_the_end};

/// A role of its own, dropped at the end.
struct Role(String);

impl Role {
    async fn with(schema: &Schema, rights: &[&str]) -> Role {
        let role = Role(format!("role_{}", schema.name));
        let create = format!("create role {0} login password '{0}'", role.0);
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut connection().await)
            .await
            .unwrap();
        for right in rights {
            let grant = format!("grant {right} schema \"{}\" to {}", schema.name, role.0);
            sqlx::raw_sql(sqlx::AssertSqlSafe(grant))
                .execute(&mut connection().await)
                .await
                .unwrap();
        }
        role
    }

    fn options(&self, schema: &Schema) -> Options {
        let connect: sqlx::postgres::PgConnectOptions = server::url().parse().unwrap();
        Options::new(connect.username(&self.0).password(&self.0))
            .schema(&schema.name)
            .unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let forget = format!("drop owned by {0}; drop role {0}", self.0);
        in_the_end("the role is left over", async move {
            sqlx::raw_sql(sqlx::AssertSqlSafe(forget))
                .execute(&mut connection().await)
                .await?;
            Ok(())
        });
    }
}

fn stream() -> StreamId {
    StreamId::new("mine-1").unwrap()
}

async fn append(store: &PostgresStore) -> Result<Position, AppendError> {
    let event = NewEvent::json("thing.happened", b"{}".as_slice());
    Ok(store
        .append(Append::new(stream(), [event]))
        .await?
        .last()
        .position)
}

/// A role that may change rows and no tables, and the store as it sees it.
async fn writer(schema: &Schema) -> (Role, PostgresStore) {
    PostgresStore::migrate(schema.options()).await.unwrap();
    let rights = [
        "usage on",
        "select, insert, update, delete on all tables in",
        "usage on all sequences in",
    ];
    let role = Role::with(schema, &rights).await;
    let store = PostgresStore::connect_with(role.options(schema).without_migration())
        .await
        .unwrap();
    (role, store)
}

#[tokio::test]
async fn a_read_only_store_follows_others_and_refuses_to_write() {
    let schema = Schema::new();
    let store = schema.store().await;
    append(&store).await.unwrap();
    let role = Role::with(&schema, &["usage on", "select on all tables in"]).await;
    let reader = PostgresStore::connect_with(role.options(&schema).read_only())
        .await
        .unwrap();
    let mut hint = reader.hint();
    append(&store).await.unwrap();
    while reader.head(Partition(0)).await.unwrap().visible < Position::new(2) {
        hint.wait(Duration::from_secs(1)).await;
    }
    assert_eq!(
        reader
            .read(ReadLog::after(Position::START))
            .await
            .unwrap()
            .events
            .len(),
        2
    );
    let refused = append(&reader).await;
    assert!(
        matches!(refused, Err(AppendError::Store(error)) if error.failure() == Failure::ReadOnly)
    );
}

#[tokio::test]
async fn a_role_without_rights_on_tables_only_cannot_migrate() {
    let schema = Schema::new();
    let (_role, store) = writer(&schema).await;
    assert_eq!(append(&store).await.unwrap(), Position::new(1));
    store
        .change_stream(
            ChangeStream::new(
                &stream(),
                StreamChange::Truncate {
                    before: annals_core::Version::new(2),
                },
            )
            .expecting(annals_core::Expected::Any),
        )
        .await
        .unwrap();

    let fold = FoldId::new("account", 1);
    let snapshot = Snapshot::new(
        stream(),
        fold.clone(),
        annals_core::Version::new(1),
        "json",
        "{}",
    );
    store.save_snapshot(snapshot).await.unwrap();
    assert!(
        store
            .newest_snapshot(&stream(), &fold, annals_core::Version::new(1))
            .await
            .unwrap()
            .is_some()
    );

    let generation = store
        .begin_generation(GenerationSpec::new("things", 1, store.id()))
        .await
        .unwrap();
    let ttl = Duration::from_secs(60);
    let acquired = store
        .acquire_lease(&generation.lease_name(0), "worker", ttl)
        .await
        .unwrap();
    let Acquired::Granted(lease) = acquired else {
        panic!("{acquired:?}")
    };
    let to = Checkpoint {
        position: Position::new(1),
        ..Checkpoint::start(0, Partition(0))
    };
    let mut step = ViewCommit::new(generation.id, lease.clone(), Position::START, to);
    step.rows.push(RowChange {
        key: "row".into(),
        value: Some("1".into()),
        indexed: Vec::new(),
    });
    store.commit_view(step).await.unwrap();
    let page = store
        .read_rows(ReadRows::of(
            generation.id,
            RowsBy::Keys(vec!["row".into()]),
        ))
        .await
        .unwrap();
    assert_eq!(page.rows.len(), 1);
    assert!(store.renew_lease(&lease, ttl).await.unwrap());
    store.release_lease(&lease).await.unwrap();
    store.switch_to(generation.id).await.unwrap();
    let other = store
        .begin_generation(GenerationSpec::new("things", 1, store.id()))
        .await
        .unwrap();
    store.drop_generation(other.id).await.unwrap();
}

#[tokio::test]
async fn settings_that_became_weak_are_noticed_at_reconnection() {
    let schema = Schema::new();
    let (role, store) = writer(&schema).await;
    assert_eq!(append(&store).await.unwrap(), Position::new(1));
    let mut other = connection().await;
    let mut goes_on_with = async |setting: &str| {
        let alter = format!("alter role {} {setting}", role.0);
        sqlx::raw_sql(sqlx::AssertSqlSafe(alter))
            .execute(&mut other)
            .await
            .unwrap();
        let cut =
            "select pg_terminate_backend(pid, 60000) from pg_stat_activity where usename = $1";
        sqlx::query(cut)
            .bind(&role.0)
            .execute(&mut other)
            .await
            .unwrap();
    };
    goes_on_with("set synchronous_commit = off").await;
    let elsewhere = Append::new(
        StreamId::new("mine-2").unwrap(),
        [NewEvent::json("thing.happened", "{}")],
    );
    let refused = store.append(elsewhere.clone()).await.unwrap_err();
    let AppendError::Store(refused) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused.failure(), Failure::Invalid);
    assert!(
        refused.to_string().contains("synchronous_commit=off"),
        "{refused}"
    );
    goes_on_with("reset synchronous_commit").await;
    assert_eq!(
        store.append(elsewhere).await.unwrap().last().position,
        Position::new(2)
    );
}
