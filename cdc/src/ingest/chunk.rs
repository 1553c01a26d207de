//! What becomes of a chunk: its events, and the appends that they go into.

use std::collections::HashSet;
use std::sync::Arc;

use annals_core::Partition;
use annals_runner::WorkError;

use super::Placed;
use super::append::Origin;
use super::appends::Batch;
use super::events::EventMaker;
use super::mark::{Mark, Partial, Resume, SnapshotMark, gap};
use super::source::{Chunk, ReadAgain, Snapshotting};
use super::status::{IngestState, Skipped};
use super::work::{Run, Taking};
use crate::lsn::Lsn;
use crate::record::{At, Body, Record};

/// Events of one append, with room for what one record brings along.
pub(super) const APPEND_EVENTS_MAX: usize = 8_000;

/// Whether these are as much as one append takes, with room for what one record brings along.
pub(super) fn is_full(events: &[Placed], bytes: usize, bytes_max: usize) -> bool {
    events.len() > APPEND_EVENTS_MAX || bytes > bytes_max
}

/// What counts towards the limit of an append.
pub(super) fn bytes_of(events: &[Placed]) -> usize {
    events.iter().map(|(_, event)| event.size_bytes()).sum()
}

/// The events of a record.
pub(super) struct Held {
    events: Vec<Placed>,
    at: At,
}

impl Run<'_> {
    /// The LSN up to which everything is known; during a snapshot, the one before it was begun.
    fn known_up_to(&self) -> Option<Lsn> {
        let mark = self.mark.as_ref()?;
        match &mark.snapshot {
            Some(snapshot) => snapshot.after,
            None => mark.resume.as_ref()?.lsn(),
        }
    }

    /// These events are made of the message that is here.
    fn made_of(&mut self, at: At, events: &[Placed]) {
        if let Some(message) = at.message {
            let ids = events.iter().map(|(_, event)| (event.id, message));
            self.messages.extend(ids);
        }
    }

    /// A row of a copy is there, although it is not taken in: what the log has of it stays.
    fn saw(&mut self, record: &Record) -> Result<(), WorkError> {
        if let Body::Row(row) = &record.body {
            let stream = self.maker.row_stream(&row.table, &row.key)?;
            if let Some(missing) = self.missing.get_mut(&row.table) {
                missing.seen(&stream);
            }
            if let Some(again) = &mut self.again {
                again.read(&row.table, &stream);
            }
        }
        Ok(())
    }
}

impl Taking<'_> {
    /// Makes the events of a chunk and gives them to be appended, after those of the chunks before
    /// it.
    pub(super) async fn take(&mut self, run: &mut Run<'_>, chunk: Chunk) -> Result<(), WorkError> {
        if chunk.is_empty() {
            self.measured(run);
            return Ok(());
        }
        if let Some(ReadAgain::Begins(point, tables)) = &chunk.again {
            if let Some(again) = &mut run.again {
                again.begins(*point, tables);
            }
            self.measured(run);
            return Ok(());
        }
        // What comes before a copy, or beside the stream, or after a copy is alone in flight.
        let is_alone = chunk.again.is_some()
            || matches!(
                chunk.snapshot,
                Some(Snapshotting::Begins(_) | Snapshotting::Complete)
            )
            // Rows are read from a slot that the log knows.
            || matches!(&chunk.snapshot, Some(Snapshotting::Rows(so_far)) if so_far.rows == 0)
            || self
                .settings
                .translators
                .iter()
                .any(|of| of.reads_changes());
        if is_alone {
            run.appends.settle().await?;
        }
        run.is_again = chunk.again.is_some();
        if run.is_again && run.again.is_none() {
            return Ok(());
        }
        let is_copy = run.is_again || chunk.snapshot.is_some();
        let before_copy = run.mark.as_ref().filter(|_| run.is_again).cloned();
        let keeps_ids = self.settings.translators.iter().any(|of| of.keeps_ids());
        run.may_be_known = chunk.may_repeat || is_copy && keeps_ids;
        if *run.maker.source() != *chunk.source {
            run.maker = EventMaker::new(Arc::clone(&chunk.source), &self.settings.prefix);
        }
        let mut mark = Mark::begun(Arc::clone(&chunk.source));
        mark.decided = run.mark.as_ref().and_then(|mark| mark.decided);
        mark.read_again = run.mark.as_ref().and_then(|mark| mark.read_again);
        mark.resume = chunk.resume.clone();
        mark.transactions = chunk.transactions;
        mark.equal.clone_from(&chunk.equal);
        mark.followed.clone_from(&chunk.followed);
        match &chunk.snapshot {
            Some(Snapshotting::Begins(tables)) => {
                self.shared
                    .change(|status| status.state = IngestState::Snapshot);
                mark.snapshot = Some(SnapshotMark {
                    after: run.known_up_to(),
                    ..SnapshotMark::default()
                });
                mark.decided = Some(run.decisions.version);
                // A new slot without a copy reads no table.
                if !tables.is_empty() {
                    mark.read_again = mark.decided;
                }
                run.again = None;
                self.look_for_missing(run, tables).await?;
            }
            Some(Snapshotting::Rows(so_far)) => {
                mark.snapshot = Some(SnapshotMark {
                    after: run.known_up_to(),
                    ..*so_far
                });
            }
            Some(Snapshotting::Complete) | None => {}
        }
        let count = chunk.records.len();
        // With room for a schema and for the mark: else the last of them moves all the others.
        let mut events: Vec<Placed> = Vec::with_capacity(count + 2);
        // Where the events of the transaction begin that is read now.
        let mut first = 0;
        // Where those of the last record begin that became some, and that record.
        let mut last: Option<(usize, At)> = None;
        if let Some(held) = run.held.take_if(|_| !is_copy) {
            last = Some((0, held.at));
            events.extend(held.events);
        }
        let bytes_max = self.append_bytes();
        let mut bytes = bytes_of(&events);
        // The last record of a transaction that is here in whole.
        let mut whole: Option<At> = None;
        for (index, record) in chunk.records.iter().enumerate() {
            let before = events.len();
            let parts = run.parts;
            if run.decisions.skips(record.at) {
                self.shared.skipped(Skipped::of_record(record));
            } else if run.decisions.skips_row(record) {
                run.saw(record)?;
                self.shared.skipped(Skipped::of_row(record));
            } else if self.is_known_without_key(run, record) || self.was_copied(run, record)? {
                // The log has it.
            } else if run.is_again {
                let taken = self.record_again(run, record, &mut events, &mark).await;
                if self.drops_again(run, taken)? {
                    return Ok(());
                }
            } else {
                if let Err(error) = self.record(run, record, &mut events, &mark).await {
                    let whole_events = match chunk.may_repeat {
                        _ if run.parts > parts => 0,
                        true => before,
                        false => first,
                    };
                    events.truncate(whole_events);
                    let whole = whole.filter(|_| !is_copy);
                    return Err(self.stops_after(run, events, &mark, whole, error).await);
                }
                if let Some(again) = &mut run.again {
                    let noted = again.note(&run.maker, record, self.settings.expand_truncates);
                    self.gives_up_again(run, noted)?;
                }
            }
            let own = if run.parts > parts { 0 } else { before };
            run.made_of(record.at, events.get(own..).unwrap_or_default());
            if run.parts > parts {
                // What was there before it is appended, and a part of its own.
                first = 0;
                last = (!events.is_empty()).then_some((0, record.at));
                bytes = bytes_of(&events);
            } else if events.len() > before {
                last = Some((before, record.at));
                bytes += bytes_of(events.get(before..).unwrap_or_default());
            }
            // A message outside of transactions may end where the commit begins that comes next.
            let transaction = |of: &Record| (of.at.lsn, of.at.xid, of.at.message);
            let next = chunk.records.get(index + 1);
            let is_last = chunk.partial.is_none()
                && next.is_none_or(|next| transaction(next) != transaction(record));
            if is_last {
                // What comes from another log stays as it was.
                if !matches!(record.body, Body::Event(_)) {
                    mark_last(events.get_mut(first..).unwrap_or_default());
                }
                first = events.len();
            }
            if is_last || chunk.may_repeat {
                whole = Some(match is_outside(record) {
                    true => before_record(record.at),
                    false => record.at,
                });
            }
            if is_full(&events, bytes, bytes_max) && index + 1 < count {
                // Some records bring many events along: a part of what is here.
                let held = last.filter(|(begins, _)| *begins > 0 && !is_last);
                let (rest, at) = match held {
                    Some((begins, at)) => (events.split_off(begins), before_record(at)),
                    None if is_outside(record) => (Vec::new(), before_record(record.at)),
                    None => (Vec::new(), record.at),
                };
                self.part(run, &mut events, &mark, at).await?;
                run.made_of(at, &rest);
                first = 0;
                last = held.map(|(_, at)| (0, at));
                events = rest;
                bytes = bytes_of(&events);
            }
        }
        if count == 0 && chunk.partial.is_none() {
            mark_last(&mut events);
        }
        if matches!(chunk.snapshot, Some(Snapshotting::Complete)) {
            self.sweep(run, &chunk, &mut events, &mark).await?;
            mark_last(&mut events);
            let to = chunk.resume.as_ref().and_then(Resume::lsn);
            events.extend(gap(self.name, run.known_up_to(), to)?);
        }
        if matches!(chunk.again, Some(ReadAgain::Complete)) {
            let swept = self.sweep_again(run, &mut events, &mark).await;
            if self.drops_again(run, swept)? {
                return Ok(());
            }
            mark_last(&mut events);
            mark.read_again = run.again.take().map(|again| again.version);
        }
        mark.partial = chunk.partial;
        if let (Some(partial), Some((begins, at))) = (&mut mark.partial, last) {
            partial.through = at.ordinal;
            let events = events.split_off(begins);
            run.held = Some(Held { events, at });
        }
        if run.is_again {
            // It is beside the stream, which stays where it is.
            mark.partial = run.mark.as_ref().and_then(|mark| mark.partial);
            mark.resume = run.mark.as_ref().and_then(|mark| mark.resume.clone());
        }
        if chunk.snapshot.is_none()
            && mark.partial.is_none()
            && let Some(partial) = run.mark.as_ref().and_then(|mark| mark.partial)
            && let Some(resume) = mark.resume.as_ref().and_then(Resume::lsn)
            && resume < partial.commit
        {
            // The rest of that transaction is to come, and what is in must not be forgotten.
            mark.partial = Some(partial);
            mark.resume = None;
        }
        if mark.partial.is_some() && mark.resume.is_none() {
            mark.resume = run.mark.as_ref().and_then(|mark| mark.resume.clone());
        }
        let mut appended = self.append(run, events, mark).await;
        if appended.is_ok() && is_alone {
            appended = run.appends.settle().await;
        }
        if run.is_again {
            if self.drops_again(run, appended)? {
                run.mark = before_copy;
                return Ok(());
            }
        } else {
            appended?;
        }
        if matches!(chunk.snapshot, Some(Snapshotting::Complete)) {
            self.shared
                .change(|status| status.state = IngestState::Following);
        }
        Ok(())
    }

    /// So many bytes are in one append, but for what its last record brings along.
    pub(super) fn append_bytes(&self) -> usize {
        self.db.store().limits().append_bytes_max / 2
    }

    /// Appends what is whole before a record that stops it, and returns why it stops.
    async fn stops_after(
        &mut self,
        run: &mut Run<'_>,
        mut events: Vec<Placed>,
        mark: &Mark,
        whole: Option<At>,
        error: WorkError,
    ) -> WorkError {
        let Some(at) = whole.filter(|_| matches!(error, WorkError::Stopped(_))) else {
            return error;
        };
        let taken = async {
            if run.may_be_known {
                run.appends.settle().await?;
                self.skip_known(&mut events).await?;
            }
            match events.is_empty() {
                true => Ok(()),
                false => self.part(run, &mut events, mark, at).await,
            }
        };
        taken.await.err().unwrap_or(error)
    }

    /// Skips what the log has already, and what is here twice. An id that belongs to an event of
    /// another stream is for the store to refuse. No other process appends it: the mark is the
    /// fence.
    async fn skip_known(&self, events: &mut Vec<Placed>) -> Result<(), WorkError> {
        let ids: Vec<_> = events.iter().map(|(_, event)| event.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let found = self.db.store().find(Partition(0), &ids).await?;
        let mut known = HashSet::new();
        for ((to, event), found) in events.iter().zip(&found) {
            if found
                .as_ref()
                .is_some_and(|found| found.placed.stream == *to)
            {
                known.insert((event.id, to.clone()));
            }
        }
        events.retain(|(to, event)| known.insert((event.id, to.clone())));
        Ok(())
    }

    /// Appends a part of a transaction: what is there so far of its records.
    pub(super) async fn part(
        &mut self,
        run: &mut Run<'_>,
        events: &mut Vec<Placed>,
        of: &Mark,
        at: At,
    ) -> Result<(), WorkError> {
        run.parts += 1;
        let mut mark = of.clone();
        mark.transactions = 0;
        mark.resumes_as(run.mark.as_ref());
        if run.is_again {
            mark.partial = run.mark.as_ref().and_then(|mark| mark.partial);
        } else if mark.snapshot.is_none() {
            mark.partial = Some(Partial {
                commit: at.lsn,
                through: at.ordinal.wrapping_add(1),
            });
        }
        self.append(run, std::mem::take(events), mark).await
    }

    async fn append(
        &mut self,
        run: &mut Run<'_>,
        mut events: Vec<Placed>,
        mut mark: Mark,
    ) -> Result<(), WorkError> {
        if run.may_be_known {
            run.appends.settle().await?;
            self.skip_known(&mut events).await?;
        } else if let Some(partial) = &mut mark.partial
            && let Some(known) = run.mark.as_ref().and_then(|mark| mark.partial)
            && known.commit == partial.commit
        {
            // What is in stays in.
            partial.through = partial.through.max(known.through);
        }
        mark.unfinished.clone_from(&run.unfinished);
        run.mark = Some(mark.clone());
        let batch = Batch {
            events,
            origin: Origin {
                is_copied: run.is_again || mark.snapshot.is_some(),
                messages: std::mem::take(&mut run.messages),
            },
            known_to: self.source.status().known_to,
            mark,
        };
        run.appends.push(batch).await
    }
}

/// Whether it is a message outside of transactions. Up to its LSN it is known, whatever is known of
/// a transaction that was committed there.
fn is_outside(record: &Record) -> bool {
    matches!(&record.body, Body::Message(message) if !message.transactional)
}

/// Such that a part up to there has nothing of the record.
pub(super) fn before_record(at: At) -> At {
    At {
        ordinal: at.ordinal.wrapping_sub(1),
        ..at
    }
}

/// The last event of a transaction says so.
fn mark_last(events: &mut [Placed]) {
    if let Some((_, event)) = events.last_mut()
        && event.metadata.keys.contains_key("cdc.commit")
    {
        event.metadata.keys.insert("cdc.last".into(), "true".into());
    }
}
