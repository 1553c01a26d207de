//! The tables and how they came about: migrations, forward only, each in a transaction of its own.

use annals_core::{Clock, Failure, LogId, StoreError};
use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

use crate::connection::Opener;
use crate::error::corrupt;

/// `ANNL`: what `file` and other tools see in the header of the file, unless the application wrote
/// its own there first.
const APPLICATION_ID: i32 = 0x414e_4e4c;

/// Every migration, in order; the first makes version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("sql/migrations/001_log.sql"),
    include_str!("sql/migrations/002_tags.sql"),
    include_str!("sql/migrations/003_snapshots.sql"),
    include_str!("sql/migrations/004_views.sql"),
    include_str!("sql/migrations/005_inline.sql"),
];

/// Brings the file to the newest version, and gives a new log its id.
pub(crate) fn upgrade(
    connection: &mut Connection,
    opener: &Opener,
    clock: &dyn Clock,
) -> Result<LogId, StoreError> {
    let failed = |error: rusqlite::Error| opener.trouble(&error).error();
    let found = version(connection).map_err(failed)?;
    check(found, opener)?;
    for (target, migration) in (1..).zip(MIGRATIONS).skip(found) {
        migrate(connection, target, migration, clock).map_err(failed)?;
    }
    log_id(connection).map_err(failed)
}

/// The log's id of a file that is not to be changed: it must have the newest version already.
pub(crate) fn accept(connection: &Connection, opener: &Opener) -> Result<LogId, StoreError> {
    let failed = |error: rusqlite::Error| opener.trouble(&error).error();
    let found = version(connection).map_err(failed)?;
    check(found, opener)?;
    if found < MIGRATIONS.len() {
        let context = format!(
            "`{}` has version {found} of the tables, this program reads {}; open it once for \
             writing to upgrade it",
            opener.name,
            MIGRATIONS.len()
        );
        return Err(StoreError::new(Failure::Incompatible, context));
    }
    log_id(connection).map_err(failed)
}

fn check(found: usize, opener: &Opener) -> Result<(), StoreError> {
    if found <= MIGRATIONS.len() {
        return Ok(());
    }
    let context = format!(
        "`{}` has version {found} of the tables, made by a newer Annals; this program knows {}",
        opener.name,
        MIGRATIONS.len()
    );
    Err(StoreError::new(Failure::Incompatible, context))
}

/// 0 for a file that Annals never opened.
fn version(connection: &Connection) -> Result<usize, rusqlite::Error> {
    if !connection.query_row(include_str!("sql/has_migrations.sql"), [], |row| {
        row.get::<_, bool>(0)
    })? {
        return Ok(0);
    }
    let found: Option<i64> =
        connection.query_row(include_str!("sql/schema_version.sql"), [], |row| row.get(0))?;
    usize::try_from(found.unwrap_or(0)).map_err(|_| corrupt("a negative version of the tables"))
}

fn migrate(
    connection: &mut Connection,
    target: usize,
    script: &str,
    clock: &dyn Clock,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited for its turn.
    if version(&transaction)? >= target {
        return transaction.rollback();
    }
    let now = clock.now().timestamp_micros();
    transaction.execute(include_str!("sql/create_migrations.sql"), [])?;
    transaction.execute_batch(script)?;
    transaction.execute(
        include_str!("sql/insert_migration.sql"),
        (target as i64, now),
    )?;
    if target == 1 {
        let id = LogId::random();
        transaction.execute(
            include_str!("sql/insert_log.sql"),
            (id.as_uuid().as_bytes(), now),
        )?;
        if transaction.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))? == 0
        {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
    }
    transaction.commit()
}

fn log_id(connection: &Connection) -> Result<LogId, rusqlite::Error> {
    let id: [u8; 16] =
        connection.query_row(include_str!("sql/log_id.sql"), [], |row| row.get(0))?;
    Ok(LogId::from_uuid(Uuid::from_bytes(id)))
}
