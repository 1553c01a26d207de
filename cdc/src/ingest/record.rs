//! What becomes of one record: its events, or why an operator has to decide.

use std::borrow::Cow;
use std::sync::Arc;

use annals_runner::WorkError;

use super::Placed;
use super::carry::{carried, known_row};
use super::large::too_long;
use super::mark::Mark;
use super::work::{Run, Taking};
use crate::record::{At, Body, Record, RowOp, RowRecord};
use crate::records::as_it_was;

impl Taking<'_> {
    /// The events of a record.
    pub(super) async fn record(
        &mut self,
        run: &mut Run<'_>,
        record: &Record,
        events: &mut Vec<Placed>,
        mark: &Mark,
    ) -> Result<(), WorkError> {
        let store = Arc::clone(self.db.store());
        let store = store.as_ref();
        let translators = &self.settings.translators;
        let is_copied = run.is_again || mark.snapshot.is_some();
        let unfit = |why: &str| unfit(record, why, is_copied);
        let mut known = None;
        if let Body::Row(row) = &record.body
            && translators.iter().any(|of| of.wants_known(record))
        {
            let before = row.moved_from().unwrap_or_else(|| row.key.clone());
            let stream = run.maker.row_stream(&row.table, &before)?;
            run.appends.settle().await?;
            known = known_row(store, events, &stream).await?;
        }
        for translator in translators {
            let made = translator.translate(&run.maker, record, known.as_ref());
            let made = made.map_err(|error| unfit(&error.to_string()))?;
            events.extend(made.into_iter().flatten());
        }
        // A row of a copy is there, whatever becomes of it.
        if let Body::Row(row) = &record.body
            && row.op == RowOp::Read
            && let Some(missing) = run.missing.get_mut(&row.table)
        {
            missing.seen(&run.maker.row_stream(&row.table, &row.key)?);
        }
        let is_replaced = self.settings.only_translated
            || self
                .settings
                .translators
                .iter()
                .any(|of| of.replaces(record));
        if is_replaced {
            return Ok(());
        }
        match &record.body {
            Body::Row(row) => {
                let row = &*match run.is_digested {
                    true => Cow::Borrowed(row),
                    false => self.settings.digests.of(row),
                };
                let mut number = 0;
                if let Some(schema) = &row.schema {
                    if let Some(known) = run.schemas.number_of_last(schema) {
                        number = known;
                    } else {
                        if !run.schemas.knows(&schema.table) {
                            run.appends.settle().await?;
                        }
                        let numbered = run.schemas.number(store, &run.maker, schema).await?;
                        number = numbered.0;
                        if numbered.1 {
                            events.push(run.maker.schema(record, schema, number)?);
                        }
                    }
                }
                let mut taken_along = None;
                if let Some(old) = row.moved_from().filter(|_| !row.unchanged.is_empty()) {
                    let old = run.maker.row_stream(&row.table, &old)?;
                    run.appends.settle().await?;
                    let found = carried(store, events, &old, row.unchanged.clone()).await?;
                    taken_along = (!found.is_empty()).then_some(found);
                }
                let made = run.maker.row(record, row, number, taken_along)?;
                let bytes_max = store.limits().payload_bytes_max;
                if let Some(why) = too_long(row, &made, bytes_max) {
                    return Err(unfit(&why));
                }
                events.extend(made);
            }
            Body::Moved(moved) => {
                let event = run
                    .maker
                    .moved(record, &moved.table, &moved.key, &moved.to)?;
                events.push(event);
            }
            Body::Message(message) => events.push(run.maker.message(record, message)?),
            Body::Event(event) => events.push(as_it_was(event)),
            Body::Truncate(truncate) => {
                for table in &truncate.tables {
                    self.truncate(run, record, table, events, mark).await?;
                }
            }
        }
        Ok(())
    }
}

/// One record cannot be taken in: an operator has to decide. The next copy has its rows under
/// another commit and in another order, so that they are named by their keys.
fn unfit(record: &Record, why: &str, is_copied: bool) -> WorkError {
    let what = match &record.body {
        Body::Row(row) if is_copied => skip_of_row(row),
        _ => skip_of(record.at),
    };
    WorkError::Stopped(format!("{why} ({what})"))
}

/// Where a record is, and how it is skipped.
pub(super) fn skip_of(at: At) -> String {
    match at.message {
        Some((partition, position)) => format!(
            "position {position} of partition {partition}: skip it with \
             `skip_message({partition}, {position}, reason)`"
        ),
        None => format!(
            "commit {}, record {}: skip it with `skip(commit, record, reason)`",
            at.lsn, at.ordinal
        ),
    }
}

/// What helps with a row of a copy.
fn skip_of_row(row: &RowRecord) -> String {
    let table = &row.table;
    let mend = "mend the row or what is made of it";
    if row.key.is_empty() {
        return format!("a row of table `{table}`, which has no key: {mend}");
    }
    let columns = row.key.iter();
    let key: Vec<_> = columns
        .map(|(name, value)| format!("({name:?}, {:?})", value.unwrap_or_default()))
        .collect();
    let table = match [&table.schema, &table.name] {
        names if names.iter().any(|of| of.contains(['.', '"'])) => table.quoted(),
        _ => table.to_string(),
    };
    format!(
        "{mend}, or skip it with `skip_row({table:?}, &[{}], reason)`",
        key.join(", ")
    )
}
