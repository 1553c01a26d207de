//! The writer's connection, and what it knows of the database: names are resolved before the
//! append section, which is one call.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    AppendError, EventId, Failure, Incarnation, LogId, Placed, StoreError, StreamId,
};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Error, Row, query, query_scalar, query_scalar_with, query_with};
use tokio::time::Instant;
use uuid::Uuid;

use crate::batch::{Admission, Batch, Written};
use crate::database::Database;
use crate::error::{StoreFault, may_have_happened, refused};
use crate::job::AppendJob;
use crate::known::known;
use crate::known_log::KnownLog;
use crate::recent::Recent;
use crate::request::KindName;
use crate::resolve::{resolve, resolve_kind};
use crate::row::{number, text};
use crate::statements as sql;
use crate::stream_cache::StreamCache;
use crate::views::inline::ensure_stream_versions;

/// After so many batches without others in between, the log is taken to be this process's alone.
const DISTURBED_FOR: u32 = 16;

/// So far a batch may reach beyond what is known before the log is looked at again: what lies
/// between is read inside the append section.
const UNKNOWN_MAX: u64 = 256;

/// How often a server that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The placed events of each append; nothing for those that were skipped.
    Written(Vec<Option<Vec<Placed>>>),
    /// Nothing was written, because more had changed than was known. It may go better now.
    Again,
    /// Nothing was written, because these ids are known.
    StoredId(HashSet<EventId>),
    /// Nothing was written.
    Failed(StoreFault),
    /// The connection was lost; whether what is seen from now on is the last word.
    Lost(bool, StoreFault),
}

/// A connection that is only used by the writer, and everything that it has learnt.
#[derive(Debug)]
pub(crate) struct AppendSession {
    pub(crate) database: Arc<Database>,
    log_id: LogId,
    connection: Option<PgConnection>,
    /// Which of the server's processes the connection speaks to, and since when.
    backend: Option<(i32, String)>,
    /// Whether every call goes to that one: a pooler may send them anywhere.
    is_direct: bool,
    retries_for: Duration,
    pub(crate) cache: StreamCache,
    recent: Recent,
    /// What is known without a gap: everything cached is right up to its head.
    pub(crate) log: KnownLog,
    /// The last event appended here after others whose events are not known.
    reached: Option<(u64, Uuid)>,
    /// The incarnation that everything here was learnt in.
    pub(crate) incarnation: u64,
    /// Whether `log` is known.
    pub(crate) is_informed: bool,
    /// For how many more batches other processes are expected to append as well.
    disturbed_for: u32,
}

impl AppendSession {
    pub(crate) fn new(
        database: Arc<Database>,
        log_id: LogId,
        connection: PgConnection,
        is_direct: bool,
        retries_for: Duration,
    ) -> AppendSession {
        AppendSession {
            database,
            log_id,
            connection: Some(connection),
            backend: None,
            is_direct,
            retries_for,
            cache: StreamCache::new(),
            recent: Recent::default(),
            log: KnownLog::default(),
            reached: None,
            incarnation: 0,
            is_informed: false,
            disturbed_for: 0,
        }
    }

    /// How far the log goes, as far as is known.
    pub(crate) fn head(&self) -> u64 {
        self.reached.map_or(self.log.head, |(position, _)| position)
    }

    pub(crate) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Nothing is lost when the server does not hear of it.
            let _ = connection.close().await;
        }
    }

    /// Learns what a batch of these appends needs to know. Nothing is written by it but names.
    pub(crate) async fn prepare(&mut self, jobs: &[AppendJob]) -> Result<(), StoreFault> {
        let is_one = matches!(jobs, [job] if job.request.events.len() == 1);
        let is_alone = self.disturbed_for == 0 && self.reached.is_some();
        if is_alone || (!is_one && self.head() - self.log.head > UNKNOWN_MAX) {
            self.is_informed = false;
        }
        let deadline = Instant::now() + self.retries_for;
        loop {
            match self.learn(jobs).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let fault = self.fault(&error);
                    self.lost(&error);
                    if fault.failure != Failure::Unavailable
                        || !may_have_happened(&error)
                        || Instant::now() >= deadline
                    {
                        return Err(fault);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Whether the append goes into the batch.
    pub(crate) fn admit(
        &mut self,
        batch: &mut Batch,
        job: &AppendJob,
    ) -> Result<Admission, StoreError> {
        batch.admit(
            &job.request,
            job.checked_to,
            &mut self.cache,
            &mut self.recent,
            self.log.head,
        )
    }

    /// Appends the batch in one call.
    pub(crate) async fn append(&mut self, batch: Batch) -> Ended {
        if self.disturbed_for == 0 {
            match self.call_one(&batch).await {
                Ok(Some(first)) => {
                    return self.settle(
                        batch,
                        &Written {
                            first,
                            ..Written::default()
                        },
                    );
                }
                Ok(None) => {}
                Err(error) => return self.ended(&error, &batch).await,
            }
        }
        // Alone, one commit and its flush cost least. Beside others, no append waits for the flush
        // of another. Rows of inline views have no position that readers would wait for.
        let flushes_later =
            self.disturbed_for > 0 && !self.database.is_relaxed && !batch.carries_rows();
        if flushes_later {
            match self.call_one_then_flush(&batch).await {
                Ok(Some((first, version))) => return self.settle_one(batch, first, version),
                Ok(None) if self.head() - self.log.head > UNKNOWN_MAX => {
                    self.is_informed = false;
                    return Ended::Again;
                }
                Ok(None) => {}
                Err(error) => return self.ended_flushing(&error, &batch).await,
            }
        }
        let called = match flushes_later {
            true => self.call_then_flush(&batch).await,
            false => self.call(&batch).await,
        };
        let row = match called {
            Ok(row) => row,
            Err(error) if flushes_later => return self.ended_flushing(&error, &batch).await,
            Err(error) => return self.ended(&error, &batch).await,
        };
        match self.written(&row) {
            Ok(Some(written)) => self.settle(batch, &written),
            Ok(None) => {
                self.is_informed = false;
                Ended::Again
            }
            // It is written, and its answer is not understood: what became of it must be looked at.
            Err(error) => {
                self.is_informed = false;
                Ended::Lost(true, self.fault(&error))
            }
        }
    }

    fn settle(&mut self, batch: Batch, written: &Written) -> Ended {
        let last = batch.last_written(&written.skips);
        let settled = batch.settle(written, &mut self.cache, &mut self.recent);
        let events: usize = settled.iter().flatten().map(Vec::len).sum();
        if events > 0 {
            self.log.head = written.first - 1 + events as u64;
            self.log.head_event = last;
            self.reached = None;
            self.database.incarnation.saw(self.log.head, last);
            self.database.durable.raise(self.incarnation, self.log.head);
        } else if written.first != self.log.head + 1 {
            self.is_informed = false;
        }
        Ended::Written(settled)
    }

    /// As [`AppendSession::settle`], of one event that others may have appended before.
    fn settle_one(&mut self, batch: Batch, first: u64, version: u64) -> Ended {
        self.disturbed_for = match first == self.head() + 1 {
            true => self.disturbed_for.saturating_sub(1),
            false => DISTURBED_FOR,
        };
        let written = Written {
            first,
            moved: batch.one_before(version),
            ..Written::default()
        };
        if first == self.log.head + 1 {
            return self.settle(batch, &written);
        }
        self.reached = batch
            .last_written(&written.skips)
            .map(|event| (first, event));
        self.database
            .incarnation
            .saw(first, self.reached.map(|(_, event)| event));
        self.database.durable.raise(self.incarnation, first);
        // It is not kept among the newest events, because what is before it is not known.
        Ended::Written(batch.settle(&written, &mut self.cache, &mut Recent::default()))
    }

    /// The position of the batch's only event; nothing, and nothing is written, when it is not such
    /// a batch, or others appended.
    async fn call_one(&mut self, batch: &Batch) -> Result<Option<u64>, Error> {
        let Some(arguments) = batch.arguments_of_one(&self.log)? else {
            return Ok(None);
        };
        let database = Arc::clone(&self.database);
        let text = database.text(sql::APPEND_ONE);
        let position: Option<i64> = query_scalar_with(text, arguments)
            .fetch_one(self.connected().await?)
            .await?;
        if position.is_none() {
            self.disturbed_for = DISTURBED_FOR;
        }
        Ok(position.map(i64::cast_unsigned))
    }

    /// The position and version of the batch's only event, appended beside others; nothing, and
    /// nothing is written, when it is not such a batch, or its stream is not as known.
    async fn call_one_then_flush(&mut self, batch: &Batch) -> Result<Option<(u64, u64)>, Error> {
        let Some(arguments) = batch.arguments_of_one_beside(&self.log, self.reached)? else {
            return Ok(None);
        };
        let database = Arc::clone(&self.database);
        let text = database.text(sql::APPEND_ONE_THEN_FLUSH);
        let row = query_with(text, arguments)
            .fetch_one(self.connected().await?)
            .await?;
        let given: (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let (Some(position), Some(version)) = given else {
            return Ok(None);
        };
        Ok(Some((position.cast_unsigned(), version.cast_unsigned())))
    }

    async fn call(&mut self, batch: &Batch) -> Result<PgRow, Error> {
        if batch.carries_rows() {
            let database = Arc::clone(&self.database);
            let (generations, keys) = batch.row_keys();
            ensure_stream_versions(&database, self.connected().await?, generations, keys).await?;
            let arguments = batch.arguments_with_rows(&self.log)?;
            let text = database.text(sql::APPEND_WITH_ROWS);
            return query_with(text, arguments)
                .fetch_one(self.connected().await?)
                .await;
        }
        let arguments = batch.arguments(&self.log)?;
        let text = self.database.text(sql::APPEND);
        query_with(text, arguments)
            .fetch_one(self.connected().await?)
            .await
    }

    /// As [`AppendSession::call`], without rows; the log is not locked while it is flushed.
    async fn call_then_flush(&mut self, batch: &Batch) -> Result<PgRow, Error> {
        let arguments = batch.arguments(&self.log)?;
        let text = self.database.text(sql::APPEND_THEN_FLUSH);
        query_with(text, arguments)
            .fetch_one(self.connected().await?)
            .await
    }

    /// What the function says; none when it wrote nothing.
    fn written(&mut self, row: &PgRow) -> Result<Option<Written>, Error> {
        if !row.try_get::<bool, _>(0)? {
            return Ok(None);
        }
        let mut written = Written {
            first: number(row, 1)?,
            ..Written::default()
        };
        let streams: Option<Vec<i64>> = row.try_get(2)?;
        let versions: Option<Vec<i64>> = row.try_get(3)?;
        for (stream, version) in streams
            .into_iter()
            .flatten()
            .zip(versions.into_iter().flatten())
        {
            written.moved.insert(stream, version.cast_unsigned());
            self.cache.written(stream, version.cast_unsigned());
        }
        let skips: Option<Vec<i32>> = row.try_get(4)?;
        written.skips = skips
            .into_iter()
            .flatten()
            .map(|append| append.cast_unsigned() as usize)
            .collect();
        self.disturbed_for = self.disturbed_for.saturating_sub(1);
        if written.first != self.log.head + 1 {
            self.disturbed_for = DISTURBED_FOR;
            // Others appended in between, and nothing is known of that but which streams it moved.
            self.recent.begin_at(written.first - 1);
        }
        Ok(Some(written))
    }

    /// As [`AppendSession::ended`], of a call that commits before it flushes: an error may be that
    /// of the flush, and the batch be written. The next one says at once what became of it.
    async fn ended_flushing(&mut self, error: &Error, batch: &Batch) -> Ended {
        self.disturbed_for = 0;
        match self.ended(error, batch).await {
            Ended::Failed(fault) => {
                self.is_informed = false;
                Ended::Lost(true, fault)
            }
            ended => ended,
        }
    }

    /// What an error of the call means for the batch.
    async fn ended(&mut self, error: &Error, batch: &Batch) -> Ended {
        let fault = self.fault(error);
        if may_have_happened(error) {
            self.lost(error);
            return Ended::Lost(self.is_over().await, fault);
        }
        match refused(error).map(|refused| (refused.code(), refused.constraint())) {
            Some(("23505", Some("event_by_id"))) => {
                let ids: Vec<EventId> = batch.ids().collect();
                let database = Arc::clone(&self.database);
                let found = match self.connected().await {
                    Ok(connection) => known(&database, connection, &ids).await,
                    Err(error) => Err(error),
                };
                match found {
                    Ok(found) => Ended::StoredId(
                        found
                            .into_iter()
                            .flatten()
                            .map(|known| known.found.placed.id)
                            .collect(),
                    ),
                    Err(error) => {
                        self.lost(&error);
                        Ended::Again
                    }
                }
            }
            Some(("23505", _)) => {
                self.is_informed = false;
                Ended::Again
            }
            _ => Ended::Failed(fault),
        }
    }

    /// Learns how far the log goes, and which incarnation it is, when that is not known.
    pub(crate) async fn inform(&mut self) -> Result<(), Error> {
        let database = Arc::clone(&self.database);
        while !self.is_informed || self.incarnation != database.incarnation.number() {
            let connection = self.connected().await?;
            let row = query(database.text(sql::LOG_HEAD))
                .fetch_one(&mut *connection)
                .await?;
            // After the read, so that what was read is of the incarnation known now, or of none.
            database
                .incarnation
                .check(&database, connection, true)
                .await?;
            let log = KnownLog::of(&row)?;
            if log.incarnation != database.incarnation.run() {
                continue;
            }
            if self.incarnation != database.incarnation.number() {
                self.incarnation = database.incarnation.number();
                self.cache = StreamCache::new();
            }
            self.log = log;
            self.reached = None;
            self.cache.forget_all();
            self.recent.begin_at(self.log.head);
            self.is_informed = true;
        }
        Ok(())
    }

    /// Refuses an append that was decided on an incarnation that is not there any more.
    pub(crate) fn check_incarnation(&self, job: &AppendJob) -> Result<(), AppendError> {
        let now = Incarnation::numbered(self.log_id, self.incarnation);
        job.request.append.check_incarnation(now)
    }

    async fn learn(&mut self, jobs: &[AppendJob]) -> Result<(), Error> {
        let database = Arc::clone(&self.database);
        self.inform().await?;
        // Of each unknown stream whether it is to be given a key, in the order of the names.
        let mut unknown: BTreeMap<&StreamId, bool> = BTreeMap::new();
        let mut kinds: Vec<&KindName> = Vec::new();
        for job in jobs {
            for touched in &job.request.streams {
                if job.is_fresh && job.tries == 0 {
                    self.cache.forget(&touched.stream);
                }
                if self.cache.stream(&touched.stream).is_none() {
                    *unknown.entry(&touched.stream).or_default() |= touched.may_be_absent();
                }
            }
            kinds.extend(
                job.request
                    .kinds
                    .iter()
                    .filter(|kind| self.cache.kind(kind).is_none()),
            );
        }
        for is_made in [false, true] {
            let names: Vec<StreamId> = unknown
                .iter()
                .filter(|(_, made)| **made == is_made)
                .map(|(name, _)| (*name).clone())
                .collect();
            if !names.is_empty() {
                for (name, key, entry) in
                    resolve(&database, self.connected().await?, &names, is_made).await?
                {
                    self.cache.learn(name, key, entry);
                }
            }
        }
        for kind in kinds {
            if self.cache.kind(kind).is_none() {
                let key = resolve_kind(&database, self.connected().await?, kind).await?;
                self.cache.learn_kind(kind.clone(), key);
            }
        }
        Ok(())
    }

    /// The connection, made again when it was lost.
    pub(crate) async fn connected(&mut self) -> Result<&mut PgConnection, Error> {
        if self.connection.is_none() {
            let connection = self.database.connection().await?;
            self.backend = None;
            self.connection = Some(connection);
        }
        let connection = self.connection.as_mut().ok_or(Error::WorkerCrashed)?;
        if self.is_direct && self.backend.is_none() {
            let row = query(self.database.text(sql::BACKEND))
                .fetch_one(&mut *connection)
                .await?;
            self.backend = Some((row.try_get(0)?, text(&row, 1)?.to_owned()));
        }
        Ok(connection)
    }

    /// Gives up the connection when the error means that it is of no more use.
    pub(crate) fn lost(&mut self, error: &Error) {
        if may_have_happened(error) {
            self.connection = None;
            self.is_informed = false;
        }
    }

    /// After the connection was lost: whether what was asked on it has come to its end, so that
    /// what is seen now is the last word.
    pub(crate) async fn is_over(&mut self) -> bool {
        let Some((process, since)) = self.backend.take() else {
            return false;
        };
        let deadline = Instant::now() + self.retries_for;
        while Instant::now() < deadline {
            let database = Arc::clone(&self.database);
            let works = match self.connected().await {
                Ok(connection) => {
                    query_scalar::<_, bool>(database.text(sql::BACKEND_WORKS))
                        .bind(process)
                        .bind(&since)
                        .fetch_one(connection)
                        .await
                }
                Err(error) => Err(error),
            };
            match works {
                Ok(false) => return true,
                Ok(true) => {}
                Err(error) => self.lost(&error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }

    pub(crate) fn fault(&self, error: &Error) -> StoreFault {
        StoreFault::of(error, "writing", &self.database.name)
    }
}

/// So many others write to the stream that the append was never in time; or it failed meanwhile,
/// the last time for this reason.
pub(crate) fn busy(stream: &StreamId, fault: Option<&StoreFault>) -> annals_core::StoreError {
    let busy = annals_core::StoreError::new(
        Failure::Unavailable,
        format!("stream `{stream}` is written by others faster than this append is; try it again"),
    );
    match fault {
        Some(fault) => busy.because(fault.error()),
        None => busy,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_append_never_in_time_names_its_last_fault() {
        let stream = StreamId::new("order-7").unwrap();
        assert!(busy(&stream, None).source().is_none());
        let fault = StoreFault::of(&Error::PoolTimedOut, "writing", "bank");
        let error = busy(&stream, Some(&fault));
        assert_eq!(error.failure(), Failure::Unavailable);
        let source = error.source().unwrap().to_string();
        assert!(source.contains("no connection to `bank`"), "{source}");
    }
}
