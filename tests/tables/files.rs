//! Logs in files of SQLite.

use std::path::PathBuf;

use annals::projections::Poison;
use annals::sqlite::SqliteStore;
use annals::sqlite::rusqlite::{Connection, OpenFlags};
use async_trait::async_trait;
use tempfile::TempDir;

use crate::fixture::LogWithTables;

/// A file in a directory of its own.
#[derive(Debug)]
pub(crate) struct Files(TempDir);

impl Files {
    fn file(&self) -> PathBuf {
        self.0.path().join("bank.db")
    }

    fn reader(&self) -> Connection {
        Connection::open_with_flags(self.file(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }
}

#[async_trait]
impl LogWithTables for Files {
    type Store = SqliteStore;

    const REPLACE_VIEW: &str = "drop view if exists NAME; create view NAME";
    const CHILD: &str = "on_sqlite::works_until_it_is_killed";

    async fn new() -> Files {
        Files(TempDir::new().unwrap())
    }

    fn place(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    async fn open(place: &str) -> SqliteStore {
        SqliteStore::open(place).await.unwrap()
    }

    async fn run(connection: &mut Connection, statements: &str) -> Result<(), Poison> {
        Ok(connection.execute_batch(statements)?)
    }

    async fn read(&self, select: &str) -> Vec<(String, i64, i64)> {
        let reader = self.reader();
        let mut select = reader.prepare(select).unwrap();
        let rows = select
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    async fn tables_like(&self, name: &str) -> i64 {
        let count =
            "select count(*) from sqlite_schema where type = 'table' and name like ?1 escape '\\'";
        self.reader()
            .query_row(count, [name], |row| row.get(0))
            .unwrap()
    }
}
