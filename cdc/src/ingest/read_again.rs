//! Rows of tables that are read again: what the log has already is skipped, and rows that it alone
//! has are gone.

use annals_runner::WorkError;

use super::Placed;
use super::again::Found;
use super::carry::known_row;
use super::mark::Mark;
use super::schemas::Schemas;
use super::work::{Run, Taking};
use crate::record::{At, Body, Record};

impl Taking<'_> {
    /// The events of a row of a table that is read again.
    pub(super) async fn record_again(
        &mut self,
        run: &mut Run<'_>,
        record: &Record,
        events: &mut Vec<Placed>,
        mark: &Mark,
    ) -> Result<(), WorkError> {
        let Some((record, is_digested)) = self.read_again(run, record, events).await? else {
            return Ok(());
        };
        run.is_digested = is_digested;
        let taken = self.record(run, &record, events, mark).await;
        run.is_digested = false;
        taken
    }

    /// What stops the reading of tables does not stop the stream: the status warns, and the tables
    /// are read again at the next start or decision. Returns whether it was given up.
    pub(super) fn gives_up_again(
        &mut self,
        run: &mut Run<'_>,
        read: Result<(), WorkError>,
    ) -> Result<bool, WorkError> {
        match read {
            Ok(()) => Ok(false),
            Err(WorkError::Stopped(why)) => {
                run.again = None;
                self.source.stops_reading_again(&why);
                self.measured(run);
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, of a chunk that is dropped with it.
    pub(super) fn drops_again(
        &mut self,
        run: &mut Run<'_>,
        read: Result<(), WorkError>,
    ) -> Result<bool, WorkError> {
        let is_dropped = self.gives_up_again(run, read)?;
        if is_dropped {
            // It may have had the event of a schema, which the log does not have then.
            run.schemas = Schemas::default();
        }
        Ok(is_dropped)
    }

    /// A row of a table that is read again, as it is now, and whether it has digests already;
    /// nothing when the log has it.
    pub(super) async fn read_again(
        &self,
        run: &mut Run<'_>,
        record: &Record,
        events: &[Placed],
    ) -> Result<Option<(Record, bool)>, WorkError> {
        let (Body::Row(row), Some(again)) = (&record.body, &mut run.again) else {
            return Ok(None);
        };
        let stream = run.maker.row_stream(&row.table, &row.key)?;
        let waiting = match again.read(&row.table, &stream) {
            Found::Untouched => {
                let was_copied = again.copied(&row.table).is_some_and(|copied| {
                    let row = &*self.settings.digests.of(row);
                    let after = row.after.as_ref();
                    after.is_some_and(|after| copied.was_copied(&stream, after))
                });
                return Ok((!was_copied).then(|| (record.clone(), false)));
            }
            Found::Known => return Ok(None),
            Found::Waiting(waiting) => waiting,
        };
        let store = self.db.store().as_ref();
        let Some(mut now) = known_row(store, events, &waiting.stream).await? else {
            return Ok(None);
        };
        // As those that the log has.
        let mut row = self.settings.digests.of(row).into_owned();
        for name in &waiting.columns {
            if let Some(value) = row.after.as_ref().and_then(|after| after.get(name)) {
                now.set(name, value.map(str::to_owned));
            }
        }
        row.key = waiting.key;
        row.after = Some(now);
        let record = Record {
            body: Body::Row(row),
            ..record.clone()
        };
        Ok(Some((record, true)))
    }

    /// As `sweep`, of the tables that were read again beside the stream.
    pub(super) async fn sweep_again(
        &mut self,
        run: &mut Run<'_>,
        events: &mut Vec<Placed>,
        mark: &Mark,
    ) -> Result<(), WorkError> {
        let Some(again) = &mut run.again else {
            return Ok(());
        };
        let at = At {
            lsn: again.point().unwrap_or_default(),
            time: Some(self.db.clock().now()),
            ..At::default()
        };
        for (table, live) in again.missing() {
            self.delete(run, &table, &live, at, events, mark).await?;
        }
        Ok(())
    }
}
