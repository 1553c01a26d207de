//! What tables hold at the point where the stream begins: read by several connections at once,
//! under the snapshot that the slot exported.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor as _, query_as};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::control::{Control, Published};
use super::copy::{Lines, values};
use super::errors::{is_forbidden, of_control, retry, stop};
use crate::columns::Columns;
use crate::ingest::{SourceError, SourceFailure};
use crate::payload::Because;
use crate::record::{BeforeImage, RowOp, RowRecord};
use crate::schema::{TableName, quoted};

/// Pages of a range: 400 MB.
const RANGE_PAGES: i64 = 50_000;
const PAGE_BYTES: i64 = 8_192;

/// Rows that are handed over at once.
const BATCH_ROWS: usize = 2_000;
const BATCH_BYTES: usize = 2 << 20;

/// How long a reader waits for a table that another session changes. One that waits for the tables
/// of an earlier reader is let through afterwards, because the copy begins again.
const LOCK_TIMEOUT: &str = "10s";

/// A part of a table.
#[derive(Clone, Debug)]
struct Range {
    published: Published,
    /// Pages from here, up to there or the end.
    pages: Option<(i64, Option<i64>)>,
}

/// A snapshot that is read.
#[derive(Debug)]
pub(super) struct Snapshot {
    rows: mpsc::Receiver<Result<Vec<RowRecord>, SourceError>>,
    // Ends the readers when it is dropped.
    readers: JoinSet<()>,
}

impl Snapshot {
    /// Reads these tables as they are in the snapshot of this name. Each connection keeps all of
    /// them from being rewritten until it has read its last row.
    pub(super) async fn read(
        options: &PgConnectOptions,
        name: &str,
        published: &[Published],
        readers: usize,
    ) -> Result<Snapshot, SourceError> {
        let ranges: VecDeque<Range> = published.iter().flat_map(ranges_of).collect();
        let readers = readers.min(ranges.len());
        let mut connected = Vec::with_capacity(readers);
        while connected.len() < readers {
            match Control::connect(options).await {
                Ok(control) => connected.push(begun(control, name, published).await?),
                // As many as the server allows.
                Err(error) if error.failure() == SourceFailure::Retry && !connected.is_empty() => {
                    tracing::warn!(%error, readers = connected.len(), "fewer connections copy");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let ranges = Arc::new(Mutex::new(ranges));
        let (give, rows) = mpsc::channel(readers.max(1));
        let mut tasks = JoinSet::new();
        for control in connected {
            tasks.spawn(read_ranges(control, Arc::clone(&ranges), give.clone()));
        }
        Ok(Snapshot {
            rows,
            readers: tasks,
        })
    }

    /// Some rows; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<RowRecord>>, SourceError> {
        if let Some(rows) = self.rows.recv().await {
            return rows.map(Some);
        }
        // One that failed has not read everything: the rest would count as deleted.
        while let Some(ended) = self.readers.join_next().await {
            ended.map_err(|error| retry(format!("a copy failed and begins again: {error}")))?;
        }
        Ok(None)
    }
}

fn ranges_of(published: &Published) -> Vec<Range> {
    let pages = published.bytes / PAGE_BYTES;
    let range = |pages| Range {
        published: published.clone(),
        pages,
    };
    if pages <= RANGE_PAGES {
        return vec![range(None)];
    }
    let count = pages / RANGE_PAGES + 1;
    let each = (0..count).map(|number| {
        let from = number * RANGE_PAGES;
        // The table may have grown since it was measured.
        let to = (number + 1 < count).then_some(from + RANGE_PAGES);
        range(Some((from, to)))
    });
    each.collect()
}

type Give = mpsc::Sender<Result<Vec<RowRecord>, SourceError>>;

/// The connection sees the snapshot, and no other session can rewrite these tables: rows of a table
/// that was rewritten after the snapshot are not in it, and nothing says so. Nor does anything say
/// that a policy hides rows, which would count as gone: instead, that is an error.
async fn begun(
    mut control: Control,
    snapshot: &str,
    published: &[Published],
) -> Result<Control, SourceError> {
    let begin = format!(
        "begin isolation level repeatable read read only; set transaction snapshot '{}'; \
         set local lock_timeout = '{LOCK_TIMEOUT}'; set local row_security = off",
        snapshot.replace('\'', "''")
    );
    let doing = "cannot read the exported snapshot: the session that exported it has ended";
    let begun = control.run(doing, begin).await;
    // Another slot exports another one.
    begun.map_err(|error| retry(annals_core::with_causes(&error).to_string()))?;
    for of in published {
        let table = &of.schema.table;
        let doing = format!("cannot copy table `{table}`");
        // Locks it, its indexes and its partitions as `copy` does, and needs no other right.
        let lock = format!("select from {}{} limit 0", only(of), table.quoted());
        let locked = control.connection.execute(AssertSqlSafe(lock)).await;
        locked.map_err(|error| of_table(&doing, table, error))?;
        // The catalog has the file of then, and the function says that of now.
        let found: Result<(bool,), _> = query_as(
            "select exists (select from pg_catalog.pg_class c where c.relfilenode <> 0 \
             and c.relfilenode is distinct from pg_relation_filenode(c.oid) \
             and (c.oid = $1::regclass or c.oid in \
             (select t.relid from pg_partition_tree($1::regclass) t)))",
        )
        .bind(table.quoted())
        .fetch_one(&mut control.connection)
        .await;
        let (is_rewritten,) = found.map_err(|error| of_control(&doing, error))?;
        if is_rewritten {
            return Err(retry(format!(
                "{doing}: it was rewritten or emptied after the snapshot was taken; the copy \
                 begins again"
            )));
        }
    }
    let done = "set local lock_timeout = 0".to_owned();
    control
        .run("cannot read the exported snapshot", done)
        .await?;
    Ok(control)
}

async fn read_ranges(mut control: Control, ranges: Arc<Mutex<VecDeque<Range>>>, give: Give) {
    let read = async {
        loop {
            let range = {
                let mut ranges = ranges.lock().unwrap_or_else(PoisonError::into_inner);
                ranges.pop_front()
            };
            match range {
                Some(range) => read_range(&mut control, &range, &give).await?,
                None => return Ok(()),
            }
        }
    };
    if let Err(error) = read.await {
        let _ = give.send(Err(error)).await;
    }
}

/// An error of a table, with what the role needs to read it.
fn of_table(doing: &str, table: &TableName, error: sqlx::Error) -> SourceError {
    match is_forbidden(&error) {
        true => of_control(&format!("{doing}: {}", grants(table)), error),
        false => of_control(doing, error),
    }
}

/// What a role needs to read a table.
fn grants(table: &TableName) -> String {
    let schema = quoted(&table.schema);
    let table = table.quoted();
    format!(
        "its role needs `grant usage on schema {schema}` and `grant select on {table}`, and \
         `alter role … bypassrls` where the table has row-level security"
    )
}

async fn read_range(control: &mut Control, range: &Range, give: &Give) -> Result<(), SourceError> {
    let schema = &range.published.schema;
    let doing = format!("cannot copy table `{}`", schema.table);
    let copy = copy_of(range);
    let mut stream = control
        .connection
        .copy_out_raw(&copy)
        .await
        .map_err(|error| of_table(&doing, &schema.table, error))?;
    let mut lines = Lines::default();
    let mut rows = Vec::new();
    let mut bytes = 0;
    let key = schema.key();
    while let Some(part) = stream
        .try_next()
        .await
        .map_err(|error| of_control(&doing, error))?
    {
        bytes += part.len();
        let taken = lines.take(&part, |line| {
            let values = match schema.columns.is_empty() {
                // Its line is empty, as that of one empty text is.
                true => Vec::new(),
                false => values(line)?,
            };
            if values.len() != schema.columns.len() {
                return Err(format!("a row with {} values", values.len()));
            }
            let names = schema.columns.iter().map(|column| Arc::clone(&column.name));
            let row: Columns = names.zip(values).collect();
            rows.push(RowRecord {
                op: RowOp::Read,
                table: schema.table.clone(),
                key: row.only(&key),
                before: BeforeImage::None,
                after: Some(row),
                unchanged: Vec::new(),
                schema: Some(Arc::clone(schema)),
                because: Because::Deleted,
                snapshot: Some("true".into()),
            });
            Ok(())
        });
        taken.map_err(|what| stop(format!("{doing}: {what}")))?;
        if rows.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
            bytes = 0;
            if give.send(Ok(std::mem::take(&mut rows))).await.is_err() {
                return Ok(());
            }
        }
    }
    if !rows.is_empty() {
        let _ = give.send(Ok(rows)).await;
    }
    Ok(())
}

fn copy_of(range: &Range) -> String {
    let schema = &range.published.schema;
    let columns: Vec<_> = schema.columns.iter().map(|of| quoted(&of.name)).collect();
    let mut conditions = Vec::new();
    if let Some((from, to)) = range.pages {
        conditions.push(format!("ctid >= '({from},0)'"));
        conditions.extend(to.map(|to| format!("ctid < '({to},0)'")));
    }
    conditions.extend(range.published.filter.clone());
    let filter = if conditions.is_empty() {
        String::new()
    } else {
        format!(" where {}", conditions.join(" and "))
    };
    format!(
        "copy (select {} from {}{}{filter}) to stdout",
        columns.join(", "),
        only(&range.published),
        schema.table.quoted()
    )
}

/// In the stream a row of a table that inherits from this one is of that table.
fn only(published: &Published) -> &'static str {
    match published.is_partitioned {
        true => "",
        false => "only ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, Identity, TableName, TableSchema};

    fn published(bytes: i64) -> Published {
        let column = Column {
            name: "a\"b".into(),
            type_name: "text".into(),
            oid: 25,
            typmod: -1,
            key: true,
        };
        Published {
            rows_about: 0,
            is_partitioned: false,
            schema: Arc::new(TableSchema {
                table: TableName::new("public", "t"),
                identity: Identity::Default,
                columns: vec![column],
            }),
            filter: Some("(id < 10)".into()),
            bytes,
            has_primary_key: true,
        }
    }

    #[tokio::test]
    async fn a_reader_that_broke_off_is_no_end() {
        let (give, rows) = mpsc::channel(1);
        let mut readers = JoinSet::new();
        readers.spawn(async move {
            let _ = give.send(Ok(Vec::new())).await;
            std::future::pending::<()>().await;
        });
        let mut snapshot = Snapshot { rows, readers };
        assert!(snapshot.next().await.unwrap().is_some());
        // As one that panicked.
        snapshot.readers.abort_all();
        assert!(snapshot.next().await.is_err());
    }

    #[test]
    fn large_tables_are_read_in_ranges_without_an_end() {
        let copies: Vec<_> = ranges_of(&published(60_000 * PAGE_BYTES))
            .iter()
            .map(copy_of)
            .collect();
        let select = "copy (select \"a\"\"b\" from only \"public\".\"t\" where ctid >= ";
        assert_eq!(
            copies,
            [
                format!("{select}'(0,0)' and ctid < '(50000,0)' and (id < 10)) to stdout"),
                format!("{select}'(50000,0)' and (id < 10)) to stdout"),
            ]
        );
        assert_eq!(ranges_of(&published(0)).len(), 1);
    }
}
