//! The tables and how they came about: migrations, forward only, each in a transaction of its own.

use annals_core::{Failure, LogId, StoreError};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Error, Row};
use uuid::Uuid;

use crate::database::Database;
use crate::error::corrupt;
use crate::options::Options;
use crate::statements as sql;

/// Every migration, in order; the first makes version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("sql/migrations/001_log.sql"),
    include_str!("sql/migrations/002_append.sql"),
    include_str!("sql/migrations/003_views.sql"),
    include_str!("sql/migrations/004_append_in.sql"),
    include_str!("sql/migrations/005_log_head.sql"),
    include_str!("sql/migrations/006_inline.sql"),
    include_str!("sql/migrations/007_own_work.sql"),
    include_str!("sql/migrations/008_rows.sql"),
    include_str!("sql/migrations/009_append.sql"),
];

/// Brings the schema to the newest version, and gives a new log its id.
pub(crate) async fn upgrade(
    database: &Database,
    connection: &mut PgConnection,
    options: &Options,
) -> Result<(), StoreError> {
    let failed = |error: Error| database.writing(&error);
    let found = version(database, connection, &options.schema)
        .await
        .map_err(failed)?;
    check(found, database)?;
    for (target, migration) in (1..).zip(MIGRATIONS).skip(found) {
        migrate(database, connection, options, target, migration)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

/// The log's id of a schema that is not to be changed: it must have the newest version already.
pub(crate) async fn accept(
    database: &Database,
    connection: &mut PgConnection,
    options: &Options,
) -> Result<LogId, StoreError> {
    let failed = |error: Error| database.reading(&error);
    let found = version(database, connection, &options.schema)
        .await
        .map_err(failed)?;
    check(found, database)?;
    if found < MIGRATIONS.len() {
        let context = format!(
            "`{}` has version {found} of the tables, this program reads {}; migrate it first",
            database.name,
            MIGRATIONS.len()
        );
        return Err(StoreError::new(Failure::Incompatible, context));
    }
    let id: Uuid = sqlx::query_scalar(database.text(sql::LOG_ID))
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    Ok(LogId::from_uuid(id))
}

fn check(found: usize, database: &Database) -> Result<(), StoreError> {
    if found <= MIGRATIONS.len() {
        return Ok(());
    }
    let context = format!(
        "`{}` has version {found} of the tables, made by a newer Annals; this program knows {}",
        database.name,
        MIGRATIONS.len()
    );
    Err(StoreError::new(Failure::Incompatible, context))
}

/// 0 for a schema that Annals never opened.
async fn version(
    database: &Database,
    connection: &mut PgConnection,
    schema: &str,
) -> Result<usize, Error> {
    let found = sqlx::query(database.text(sql::HAS_SCHEMA))
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?;
    if !found.try_get::<bool, _>(1)? {
        return Ok(0);
    }
    let found: Option<i32> = sqlx::query_scalar(database.text(sql::SCHEMA_VERSION))
        .fetch_one(connection)
        .await?;
    usize::try_from(found.unwrap_or(0)).map_err(|_| corrupt("a negative version of the tables"))
}

async fn migrate(
    database: &Database,
    connection: &mut PgConnection,
    options: &Options,
    target: usize,
    script: &str,
) -> Result<(), Error> {
    let now = options.clock.now().timestamp_micros();
    let mut transaction = connection.begin().await?;
    sqlx::query(database.text(sql::LOCK_MIGRATIONS))
        .bind(&options.schema)
        .execute(&mut *transaction)
        .await?;
    // Another process may have done it while this one waited for its turn.
    if version(database, &mut transaction, &options.schema).await? >= target {
        return transaction.rollback().await;
    }
    let found = sqlx::query(database.text(sql::HAS_SCHEMA))
        .bind(&options.schema)
        .fetch_one(&mut *transaction)
        .await?;
    // Only when it is not there: asking for it needs a right that the owner of a schema may not
    // have.
    if !found.try_get::<bool, _>(0)? {
        let create = format!("create schema \"{}\"", options.schema);
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::raw_sql(database.text(sql::CREATE_MIGRATION))
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(database.named(script))
        .execute(&mut *transaction)
        .await?;
    sqlx::query(database.text(sql::INSERT_MIGRATION))
        .bind(target as i32)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
    if target == 1 {
        let id = LogId::random();
        sqlx::query(database.text(sql::INSERT_LOG))
            .bind(id.as_uuid())
            .bind(now)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
