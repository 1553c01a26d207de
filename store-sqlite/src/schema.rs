//! The tables and their migrations: forward only, each in a transaction of its own.

use annals_core::{Clock, Failure, LogId, StoreError};
use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

use crate::connection::Opener;
use crate::error::corrupt;

/// `ANNL`: what `file` and other tools see in the header of the file, unless the application wrote
/// its own there first.
const APPLICATION_ID: i32 = 0x414e_4e4c;

/// Every migration, in order; the first makes version 1. A released one is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("sql/schema/001_tables.sql"),
    include_str!("sql/schema/002_view_state.sql"),
    include_str!("sql/schema/003_removed_events.sql"),
];

/// Brings the file to the newest version; a log that is new gets the id `new`.
pub(crate) fn upgrade(
    connection: &mut Connection,
    opener: &Opener,
    clock: &dyn Clock,
    new: LogId,
) -> Result<LogId, StoreError> {
    upgrade_by(MIGRATIONS, connection, opener, clock, new)
}

fn upgrade_by(
    migrations: &[&str],
    connection: &mut Connection,
    opener: &Opener,
    clock: &dyn Clock,
    new: LogId,
) -> Result<LogId, StoreError> {
    let failed = |error: rusqlite::Error| opener.fault(&error).error();
    let found = version(connection).map_err(failed)?;
    refuse_newer(found, migrations, opener)?;
    for (target, migration) in (1..).zip(migrations).skip(found) {
        migrate(connection, target, migration, clock, new).map_err(failed)?;
    }
    log_id(connection).map_err(failed)
}

/// The log's id of a file that is not to be changed: it must have the newest version already.
pub(crate) fn accept(connection: &Connection, opener: &Opener) -> Result<LogId, StoreError> {
    accept_by(MIGRATIONS, connection, opener)
}

fn accept_by(
    migrations: &[&str],
    connection: &Connection,
    opener: &Opener,
) -> Result<LogId, StoreError> {
    let failed = |error: rusqlite::Error| opener.fault(&error).error();
    let found = version(connection).map_err(failed)?;
    refuse_newer(found, migrations, opener)?;
    if found < migrations.len() {
        let context = format!(
            "`{}` has schema version {found}, this program reads {}; open it once for writing to \
             migrate it",
            opener.name,
            migrations.len()
        );
        return Err(StoreError::new(Failure::Incompatible, context));
    }
    log_id(connection).map_err(failed)
}

fn refuse_newer(found: usize, migrations: &[&str], opener: &Opener) -> Result<(), StoreError> {
    if found <= migrations.len() {
        return Ok(());
    }
    let context = format!(
        "`{}` has schema version {found}, made by a newer Annals; this program knows {}; update \
         the program",
        opener.name,
        migrations.len()
    );
    Err(StoreError::new(Failure::Incompatible, context))
}

/// 0 for a file that Annals never opened.
fn version(connection: &Connection) -> Result<usize, rusqlite::Error> {
    let has_migrations: bool =
        connection.query_row(include_str!("sql/schema/has_migrations.sql"), [], |row| {
            row.get(0)
        })?;
    if !has_migrations {
        return Ok(0);
    }
    let found: Option<i64> =
        connection.query_row(include_str!("sql/schema/version.sql"), [], |row| row.get(0))?;
    usize::try_from(found.unwrap_or(0)).map_err(|_| corrupt("a negative schema version"))
}

fn migrate(
    connection: &mut Connection,
    target: usize,
    script: &str,
    clock: &dyn Clock,
    new: LogId,
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited for the lock.
    if version(&transaction)? >= target {
        return transaction.rollback();
    }
    let now = clock.now().timestamp_micros();
    transaction.execute(include_str!("sql/schema/create_migrations.sql"), [])?;
    transaction.execute_batch(script)?;
    transaction.execute(
        include_str!("sql/schema/insert_migration.sql"),
        (target as i64, now),
    )?;
    if target == 1 {
        transaction.execute(
            include_str!("sql/schema/insert_log.sql"),
            (new.as_uuid().as_bytes(), now),
        )?;
        let application: i32 =
            transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if application == 0 {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
    }
    transaction.commit()
}

pub(crate) fn log_id(connection: &Connection) -> Result<LogId, rusqlite::Error> {
    let id: [u8; 16] =
        connection.query_row(include_str!("sql/schema/log_id.sql"), [], |row| row.get(0))?;
    Ok(LogId::from_uuid(Uuid::from_bytes(id)))
}

#[cfg(test)]
mod tests {
    use annals_core::SystemClock;

    use super::*;
    use crate::options::Options;

    /// The migrations of a later release, which has one more.
    fn later(migration: &'static str) -> Vec<&'static str> {
        [MIGRATIONS, &[migration]].concat()
    }

    /// The connection keeps the store in memory alive.
    fn opened() -> (Opener, Connection) {
        let opener = Opener::new(&Options::in_memory()).unwrap();
        let connection = opener.writer().unwrap();
        (opener, connection)
    }

    #[test]
    fn an_older_schema_is_migrated_forward() {
        let (opener, mut connection) = opened();
        let log = upgrade(&mut connection, &opener, &SystemClock, LogId::random()).unwrap();
        connection
            .execute("insert into annals_streams (name) values ('a-1')", [])
            .unwrap();
        let later =
            later("alter table annals_streams add column added integer not null default 7;");
        let refused = accept_by(&later, &connection, &opener).unwrap_err();
        assert!(
            refused.to_string().contains("open it once for writing"),
            "{refused}"
        );
        for _ in 0..2 {
            let migrated = upgrade_by(
                &later,
                &mut connection,
                &opener,
                &SystemClock,
                LogId::random(),
            )
            .unwrap();
            assert_eq!(migrated, log);
        }
        let added: i64 = connection
            .query_row("select added from annals_streams", [], |row| row.get(0))
            .unwrap();
        assert_eq!((version(&connection).unwrap(), added), (later.len(), 7));
        assert_eq!(accept_by(&later, &connection, &opener).unwrap(), log);
        // The program of the older release does not touch what it does not know.
        let refused = upgrade(&mut connection, &opener, &SystemClock, LogId::random()).unwrap_err();
        assert_eq!(refused.failure(), Failure::Incompatible);
        assert!(refused.to_string().contains("newer Annals"), "{refused}");
    }

    #[test]
    fn a_failed_migration_leaves_the_older_schema() {
        let (opener, mut connection) = opened();
        let broken = later("create table annals_new (n); select nonsense;");
        let log = upgrade(&mut connection, &opener, &SystemClock, LogId::random()).unwrap();
        upgrade_by(
            &broken,
            &mut connection,
            &opener,
            &SystemClock,
            LogId::random(),
        )
        .unwrap_err();
        assert_eq!(version(&connection).unwrap(), MIGRATIONS.len());
        let created = "select count(*) from sqlite_schema where name = 'annals_new'";
        let created: i64 = connection.query_row(created, [], |row| row.get(0)).unwrap();
        assert_eq!(created, 0);
        assert_eq!(
            upgrade(&mut connection, &opener, &SystemClock, LogId::random()).unwrap(),
            log
        );
    }
}
