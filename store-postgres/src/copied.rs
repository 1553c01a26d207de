//! Long pages of the log, as the server copies them out: a copied row costs the client's driver
//! less than a row of a statement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{Error, Row, query};

use crate::database::Database;
use crate::error::corrupt;
use crate::events::{Decoding, Read};
use crate::row::{Columns, number};
use crate::statements as sql;

/// What the format begins with, before the length of an extension
/// (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format").
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Those of an event.
const COLUMNS: usize = 11;

/// For how long it is not looked again how far the log goes, while there is enough to read.
const LOOKS_EVERY: Duration = Duration::from_millis(50);

/// How far long pages go, and which kinds the wanted types have up to there.
#[derive(Debug)]
pub(crate) struct Horizon {
    types: Vec<String>,
    kinds: Vec<i32>,
    head: u64,
    seen_at: Instant,
}

impl Horizon {
    /// For reading about as far as `wanted`; that of the last page if it will do.
    async fn of(database: &Database, types: &[String], wanted: u64) -> Result<Arc<Horizon>, Error> {
        let incarnation = database.incarnation.number();
        let last = database.horizon.of(incarnation, |last| last.clone());
        if let Some(last) = last.filter(|last| last.types == types && wanted <= last.head)
            && last.seen_at.elapsed() < LOOKS_EVERY
        {
            return Ok(last);
        }
        let row = query(database.text(sql::KINDS_UP_TO))
            .bind(types)
            .fetch_one(&database.pool)
            .await?;
        let horizon = Horizon {
            types: types.to_vec(),
            kinds: row.try_get(1)?,
            head: number(&row, 0)?,
            seen_at: Instant::now(),
        };
        let horizon = Arc::new(horizon);
        let kept = Some(Arc::clone(&horizon));
        database.horizon.of(incarnation, |last| *last = kept);
        Ok(horizon)
    }
}

/// What is copied: at most `limit` events after `after`, at or before `up_to`, the payloads of at
/// most `payload_bytes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied<'a> {
    pub(crate) after: u64,
    pub(crate) up_to: u64,
    pub(crate) limit: usize,
    pub(crate) payload_bytes: usize,
    /// Nothing given means any.
    pub(crate) types: &'a [String],
}

impl Copied<'_> {
    /// The statement that gives the rows.
    pub(crate) fn statement(&self, kinds: &[i32]) -> String {
        let wanted = match self.types {
            [] => "kind > 0".to_owned(),
            _ => {
                let kinds: Vec<String> = kinds.iter().map(i32::to_string).collect();
                // The index of kinds is left alone.
                format!("kind + 0 = any ('{{{}}}'::integer[])", kinds.join(","))
            }
        };
        sql::LOG_COPY
            .replace("$1", &self.after.to_string())
            .replace("$2", &self.up_to.to_string())
            .replace("$3", &self.limit.to_string())
            .replace("$4", &self.payload_bytes.to_string())
            .replace("$5", &wanted)
    }

    /// Reads it, and how far the log goes.
    pub(crate) async fn read(mut self, database: &Arc<Database>) -> Result<Read<u64>, Error> {
        let horizon = Horizon::of(
            database,
            self.types,
            self.up_to.min(self.after.saturating_add(self.limit as u64)),
        )
        .await?;
        self.up_to = self.up_to.min(horizon.head);
        let text = format!(
            "copy (\n{}) to stdout (format binary)",
            self.statement(&horizon.kinds)
        );
        let text = database.named(&text);
        let pool = database.pool.clone();
        let mut decoding = Decoding::begin(database, 0, self.limit);
        // In a task that is never dropped, and on a connection that is given up when something is
        // wrong: the rest of a copy would be left in it for the next one.
        let copying = tokio::spawn(async move {
            let mut connection = pool.acquire().await?;
            let copied = copy(&mut connection, text.as_str(), &mut decoding).await;
            if copied.is_err() {
                connection.close_on_drop();
            }
            copied.map(|()| decoding)
        });
        let decoding = copying.await.map_err(|_| Error::WorkerCrashed)??;
        let (found, events) = decoding.finish(database).await?;
        Ok(Read {
            seen: horizon.head,
            found,
            events,
        })
    }
}

async fn copy(
    connection: &mut PgConnection,
    text: &str,
    decoding: &mut Decoding<CopiedRow>,
) -> Result<(), Error> {
    let mut rows = connection.copy_out_raw(text).await?;
    while let Some(message) = rows.try_next().await? {
        if let Some(row) = CopiedRow::read(message)? {
            decoding.take(row)?;
        }
    }
    Ok(())
}

/// One row; the server sends each in a message of its own
/// (<https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY>).
#[derive(Debug)]
struct CopiedRow {
    row: Bytes,
    /// Where each column begins, and how long it is; a negative length is null.
    columns: [(u32, i32); COLUMNS],
}

impl CopiedRow {
    /// The row of a message; nothing when it is the end.
    fn read(mut message: Bytes) -> Result<Option<CopiedRow>, Error> {
        let broken = || corrupt("a copied row that is not understood");
        if message.starts_with(SIGNATURE) {
            message.advance(SIGNATURE.len());
            message.try_get_u32().map_err(|_| broken())?;
            let extension = message.try_get_u32().map_err(|_| broken())? as usize;
            if message.len() < extension {
                return Err(broken());
            }
            message.advance(extension);
            if message.is_empty() {
                return Ok(None);
            }
        }
        let mut rest = &message[..];
        let count = rest.try_get_i16().map_err(|_| broken())?;
        if count == -1 {
            return Ok(None);
        }
        if usize::try_from(count) != Ok(COLUMNS) {
            return Err(broken());
        }
        let mut columns = [(0, -1); COLUMNS];
        for column in &mut columns {
            let length = rest.try_get_i32().map_err(|_| broken())?;
            let at = u32::try_from(message.len() - rest.len()).map_err(|_| broken())?;
            *column = (at, length);
            if let Ok(length) = usize::try_from(length) {
                rest = rest.get(length..).ok_or_else(broken)?;
            }
        }
        Ok(Some(CopiedRow {
            row: message,
            columns,
        }))
    }
}

impl Columns for CopiedRow {
    #[inline]
    fn column(&self, at: usize) -> Result<Option<&[u8]>, Error> {
        let (begin, length) = self.columns[at];
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let bytes = self
            .row
            .get(begin as usize..)
            .and_then(|rest| rest.get(..length));
        bytes
            .map(Some)
            .ok_or_else(|| corrupt("a copied row that is not understood"))
    }
}
