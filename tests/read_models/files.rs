//! Logs in files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use annals::sqlite::rusqlite::types::ValueRef;
use annals::sqlite::rusqlite::{Connection, ErrorCode, Row, TransactionBehavior};
use async_trait::async_trait;
use tempfile::TempDir;

use crate::child::ChildProcess;
use crate::fixture::{HeldCommit, Location, SharedLogs};

/// A directory of files.
#[derive(Debug)]
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) async fn new() -> Files {
        Files(TempDir::new().unwrap())
    }

    fn file(&self, log: &str) -> PathBuf {
        self.0.path().join(format!("{log}.db"))
    }

    /// Waits until the connections of this process are closed, which threads of their own do: the
    /// last one removes the write-ahead log. That of a killed process stays.
    async fn closed(&self, log: &str) {
        let wal = PathBuf::from(format!("{}-wal", self.file(log).display()));
        let gone = async {
            while wal.exists() {
                tokio::task::yield_now().await;
            }
        };
        let _or_stays = tokio::time::timeout(Duration::from_secs(2), gone).await;
    }
}

#[async_trait]
impl SharedLogs for Files {
    async fn place(&self, log: &str) -> Location {
        Location(format!("sqlite:{}", self.file(log).display()))
    }

    async fn copy(&self, from: &str, to: &str) {
        self.closed(from).await;
        self.closed(to).await;
        for end in ["", "-wal", "-shm"] {
            let with_end = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
            let from = with_end(&self.file(from));
            let to = with_end(&self.file(to));
            if from.exists() {
                std::fs::copy(from, to).unwrap();
            } else if to.exists() {
                std::fs::remove_file(to).unwrap();
            }
        }
    }

    async fn stored(&self, log: &str) -> Vec<String> {
        let connection = Connection::open(self.file(log)).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        let strings = |statement: &str, of_row: &dyn Fn(&Row<'_>) -> String| {
            let mut statement = connection.prepare(statement).unwrap();
            let rows = statement.query_map([], |row| Ok(of_row(row))).unwrap();
            rows.collect::<Result<Vec<String>, _>>().unwrap()
        };
        let tables = "select name from sqlite_schema where type = 'table'";
        let text = |row: &Row<'_>| {
            let columns =
                (0..row.as_ref().column_count()).map(|at| match row.get_ref(at).unwrap() {
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                        String::from_utf8_lossy(bytes).into_owned()
                    }
                    other => format!("{other:?}"),
                });
            columns.collect::<Vec<_>>().join("|")
        };
        let tables = strings(tables, &|row| row.get(0).unwrap());
        let of = |table: &String| {
            let rows = strings(&format!("select * from \"{table}\""), &text);
            rows.into_iter()
                .map(|row| format!("{table}: {row}"))
                .collect::<Vec<_>>()
        };
        tables.iter().flat_map(of).collect()
    }

    async fn cut_off(&self, _: &str) -> usize {
        0
    }

    async fn hold_commits(&self, log: &str) -> Box<dyn HeldCommit> {
        let connection = Connection::open(self.file(log)).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        // The last that a step writes is its checkpoint. What follows it never ends, and the COMMIT
        // would come next.
        let hold = "
            create view endless as
                with recursive endless(n) as (select 1 union all select n + 1 from endless)
                select n from endless;
            create trigger held after insert on annals_view_checkpoints begin
                select count(*) from endless;
            end;
        ";
        connection.execute_batch(hold).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        Box::new(HeldFile(connection))
    }
}

struct HeldFile(Connection);

impl HeldFile {
    fn another_writes(&mut self) -> bool {
        match self
            .0
            .transaction_with_behavior(TransactionBehavior::Immediate)
        {
            Ok(_) => false,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => true,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A transaction in which a process has worked for so long (in hundredths of a second of processor
/// time) has written its few rows.
const WRITTEN: u64 = 5;

#[async_trait]
impl HeldCommit for HeldFile {
    async fn is_reached_by(&mut self, process: &mut ChildProcess) {
        let mut writes_since = None;
        loop {
            if !self.another_writes() {
                writes_since = None;
            } else {
                let Some(worked) = process.worked() else {
                    return;
                };
                if worked >= *writes_since.get_or_insert(worked) + WRITTEN {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    async fn end(self: Box<Self>, _: bool) -> bool {
        self.0.busy_timeout(Duration::from_secs(60)).unwrap();
        self.0
            .execute_batch("drop trigger held; drop view endless")
            .unwrap();
        false
    }
}
