//! The schema: migrations of its tables, forward only, each in a transaction of its own; and its
//! functions, which are replaced when their text is not the one that was applied last.

use std::collections::HashMap;

use annals_core::{Failure, LogId, StoreError};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Error, Row};
use uuid::Uuid;

use crate::database::Database;
use crate::error::corrupt;
use crate::options::Options;
use crate::query_plan::fnv;
use crate::statements as sql;

/// Every migration of the tables, in order; the first makes version 1. A migration that changes
/// the parameters of a function drops the function.
const MIGRATIONS: &[&str] = &[
    include_str!("sql/tables.sql"),
    include_str!("sql/view_state_table.sql"),
    include_str!("sql/removed_events_index.sql"),
];

/// What a schema has of this program's functions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Functions {
    Current,
    /// Some are missing, or have another text.
    Older,
    /// A newer release has replaced them; they keep its promises and ours.
    Newer,
}

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
    let stored = functions(database, connection).await.map_err(failed)?;
    if compare(&stored) == Functions::Older {
        replace_functions(database, connection, options)
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
    let of = &database.name;
    let newest = MIGRATIONS.len();
    if found < newest {
        return Err(incompatible(format!(
            "`{of}` has version {found} of the tables, this program reads {newest}; migrate it \
             first"
        )));
    }
    let stored = functions(database, connection).await.map_err(failed)?;
    if compare(&stored) == Functions::Older {
        return Err(incompatible(format!(
            "`{of}` has functions of an older Annals; migrate it first"
        )));
    }
    let id: Uuid = sqlx::query_scalar(database.text(sql::LOG_ID))
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    Ok(LogId::from_uuid(id))
}

fn incompatible(what: String) -> StoreError {
    StoreError::new(Failure::Incompatible, what)
}

fn check(found: usize, database: &Database) -> Result<(), StoreError> {
    if found <= MIGRATIONS.len() {
        return Ok(());
    }
    Err(incompatible(format!(
        "`{}` has version {found} of the tables, made by a newer Annals; this program knows {}",
        database.name,
        MIGRATIONS.len()
    )))
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
    lock(database, &mut transaction, options).await?;
    // Another process may have done it while this one waited for its turn.
    if version(database, &mut transaction, &options.schema).await? >= target {
        return transaction.rollback().await;
    }
    let found = sqlx::query(database.text(sql::HAS_SCHEMA))
        .bind(&options.schema)
        .fetch_one(&mut *transaction)
        .await?;
    // Only when it is missing: asking for it needs a right that the owner of a schema may lack.
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
    // With the tables, so that no schema is ever without them.
    apply_functions(database, &mut transaction).await?;
    transaction.commit().await
}

/// One program at a time changes the schema.
async fn lock(
    database: &Database,
    connection: &mut PgConnection,
    options: &Options,
) -> Result<(), Error> {
    sqlx::query(database.text(sql::LOCK_MIGRATIONS))
        .bind(&options.schema)
        .execute(connection)
        .await
        .map(drop)
}

async fn replace_functions(
    database: &Database,
    connection: &mut PgConnection,
    options: &Options,
) -> Result<(), Error> {
    let mut transaction = connection.begin().await?;
    lock(database, &mut transaction, options).await?;
    apply_functions(database, &mut transaction).await?;
    transaction.commit().await
}

/// Applies the functions whose text differs, unless a newer release has been here.
async fn apply_functions(database: &Database, connection: &mut PgConnection) -> Result<(), Error> {
    let stored = functions(database, connection).await?;
    if compare(&stored) != Functions::Older {
        return Ok(());
    }
    for (name, text) in texts() {
        let checksum = checksum(text);
        if stored
            .get(*name)
            .is_some_and(|stored| stored.checksum == checksum)
        {
            continue;
        }
        sqlx::raw_sql(database.named(text))
            .execute(&mut *connection)
            .await?;
        sqlx::query(database.text(sql::SAVE_FUNCTION))
            .bind(name)
            .bind(checksum)
            .bind(release())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn texts() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    sql::FUNCTIONS.iter().chain([&sql::READABLE_VIEWS])
}

/// What the schema keeps of a function's text.
struct StoredFunction {
    checksum: String,
    is_newer: bool,
}

async fn functions(
    database: &Database,
    connection: &mut PgConnection,
) -> Result<HashMap<String, StoredFunction>, Error> {
    let found = sqlx::query(database.text(sql::FUNCTIONS_OF_SCHEMA))
        .bind(release())
        .fetch_all(connection)
        .await?;
    let stored = |row: &PgRow| {
        let checksum = row.try_get(1)?;
        let is_newer = row.try_get(2)?;
        Ok((row.try_get(0)?, StoredFunction { checksum, is_newer }))
    };
    found.iter().map(stored).collect()
}

fn compare(stored: &HashMap<String, StoredFunction>) -> Functions {
    if stored.values().any(|function| function.is_newer) {
        return Functions::Newer;
    }
    let is_current = |(name, text): &(&str, &str)| {
        stored
            .get(*name)
            .is_some_and(|stored| stored.checksum == checksum(text))
    };
    match texts().all(is_current) {
        true => Functions::Current,
        false => Functions::Older,
    }
}

fn checksum(text: &str) -> String {
    format!("{:016x}", fnv(text.as_bytes()))
}

/// Major, minor and patch number of this release.
fn release() -> Vec<i32> {
    let numbers = env!("CARGO_PKG_VERSION").split(['.', '-', '+']).take(3);
    numbers.map(|number| number.parse().unwrap_or(0)).collect()
}
