//! Changes become what they mean, in the append that takes them in.

use std::marker::PhantomData;

use annals_core::{Event, Invalid, NewEvent, StreamId};

use crate::change::{Change, change};
use crate::columns::Columns;
use crate::ingest::{EventMaker, Placed};
use crate::payload::RowPayload;
use crate::record::{BeforeImage, Body, Record, RowOp, RowRecord};
use crate::row::{ReceivedRow, TableRow};
use crate::schema::TableName;

/// Makes further events of a record.
pub(crate) trait Translator: Send + Sync {
    /// The events, if it makes some of this one. `known` is the last row of this key in the log,
    /// for translations that need it.
    fn translate(
        &self,
        maker: &EventMaker,
        record: &Record,
        known: Option<&Columns>,
    ) -> Result<Option<Vec<Placed>>, Invalid>;

    /// Whether it needs the last row of the key in the log.
    fn wants_known(&self, _record: &Record) -> bool {
        false
    }

    /// Whether it reads the changes from the log, which must be stored then.
    fn reads_changes(&self) -> bool {
        false
    }

    /// The table that it reads, and what it does with it.
    fn reads(&self) -> Option<(&'static str, TableName)> {
        None
    }

    /// Whether its events have ids that the source gave them, in each copy the same.
    fn keeps_ids(&self) -> bool {
        false
    }

    /// Whether the record itself is not stored.
    fn replaces(&self, _record: &Record) -> bool {
        false
    }
}

/// A function over the changes of one table.
pub(crate) struct Translate<T, E, F> {
    function: F,
    types: PhantomData<fn() -> (T, E)>,
}

impl<T, E, F> Translate<T, E, F> {
    pub(crate) fn new(function: F) -> Translate<T, E, F> {
        Translate {
            function,
            types: PhantomData,
        }
    }
}

impl<T, E, F> Translator for Translate<T, E, F>
where
    T: TableRow,
    E: Event,
    F: Fn(&Change<T>) -> Option<(String, E)> + Send + Sync + 'static,
{
    fn translate(
        &self,
        maker: &EventMaker,
        record: &Record,
        _known: Option<&Columns>,
    ) -> Result<Option<Vec<Placed>>, Invalid> {
        made(maker, record, |change, _| (self.function)(change))
    }

    fn reads(&self) -> Option<(&'static str, TableName)> {
        Some(("translated", T::table()))
    }
}

/// A function over the changes of one table, and the last rows of their keys in the log.
pub(crate) struct TranslateKnown<T, E, F> {
    function: F,
    types: PhantomData<fn() -> (T, E)>,
}

impl<T, E, F> TranslateKnown<T, E, F> {
    pub(crate) fn new(function: F) -> TranslateKnown<T, E, F> {
        TranslateKnown {
            function,
            types: PhantomData,
        }
    }
}

impl<T, E, F> Translator for TranslateKnown<T, E, F>
where
    T: TableRow,
    E: Event,
    F: Fn(Option<&T>, &Change<T>) -> Option<(String, E)> + Send + Sync + 'static,
{
    fn translate(
        &self,
        maker: &EventMaker,
        record: &Record,
        known: Option<&Columns>,
    ) -> Result<Option<Vec<Placed>>, Invalid> {
        made(maker, record, |change: &Change<T>, row| {
            let sent = match &row.before {
                BeforeImage::Full(columns) => Some(columns),
                _ => known,
            };
            let read = |columns| {
                T::from_columns(&ReceivedRow {
                    columns,
                    unchanged: &[],
                    schema: 0,
                })
            };
            // A row under an older schema may not decode under today's.
            let known = sent.and_then(|columns| read(columns).ok());
            (self.function)(known.as_ref(), change)
        })
    }

    fn wants_known(&self, record: &Record) -> bool {
        match &record.body {
            Body::Row(row) => {
                row.table == T::table()
                    && matches!(row.op, RowOp::Update | RowOp::Delete)
                    && !matches!(row.before, BeforeImage::Full(_))
            }
            _ => false,
        }
    }

    fn reads_changes(&self) -> bool {
        true
    }

    fn reads(&self) -> Option<(&'static str, TableName)> {
        Some(("translated", T::table()))
    }
}

/// What a function makes of a change of its table.
fn made<T: TableRow, E: Event>(
    maker: &EventMaker,
    record: &Record,
    function: impl FnOnce(&Change<T>, &RowRecord) -> Option<(String, E)>,
) -> Result<Option<Vec<Placed>>, Invalid> {
    let Body::Row(row) = &record.body else {
        return Ok(None);
    };
    if row.table != T::table() {
        return Ok(None);
    }
    let wrong = |what: String| {
        Invalid::new(format!(
            "a change of `{}` cannot be translated: {what}",
            row.table
        ))
    };
    // What types of users do with their values may panic as the function may.
    let read = annals_runner::contained(|| change::<T>(row.op, &RowPayload::of(row, 0)));
    let change = read
        .map_err(wrong)?
        .map_err(|error| wrong(error.to_string()))?;
    let made = annals_runner::contained(|| function(&change, row)).map_err(wrong)?;
    let Some((stream, event)) = made else {
        return Ok(None);
    };
    let stream = StreamId::new(stream)?;
    let encoded = annals_runner::contained(|| event.encode()).map_err(wrong)?;
    let encoded = encoded.map_err(|error| wrong(error.to_string()))?;
    let shape = event.shape();
    let mut new = NewEvent::new(shape.event_type, encoded.codec, encoded.payload)
        .schema_version(shape.schema_version)
        .id(maker.id(record, &format!("{} {stream}", shape.event_type)));
    for tag in annals_runner::contained(|| event.tags()).map_err(wrong)?? {
        new = new.tag(tag);
    }
    Ok(Some(vec![(stream, maker.with_metadata(new, record))]))
}
