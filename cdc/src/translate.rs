//! Changes become what they mean, in the append that takes them in.

use std::marker::PhantomData;

use annals_core::{Event, Invalid, NewEvent, StreamId};

use crate::change::{Change, change};
use crate::ingest::{EventMaker, Placed};
use crate::payload::RowPayload;
use crate::record::{Body, Record};
use crate::row::TableRow;

/// Makes further events of a record.
pub(crate) trait Translator: Send + Sync {
    /// The events, if it makes some of this one.
    fn translate(
        &self,
        maker: &EventMaker,
        record: &Record,
    ) -> Result<Option<Vec<Placed>>, Invalid>;

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
        let change = change::<T>(row.op, &RowPayload::of(row, 0));
        let change = change.map_err(|error| wrong(error.to_string()))?;
        let made = annals_runner::contained(|| (self.function)(&change)).map_err(wrong)?;
        let Some((stream, event)) = made else {
            return Ok(None);
        };
        let stream = StreamId::new(stream)?;
        let encoded = event.encode().map_err(|error| wrong(error.to_string()))?;
        let shape = event.shape();
        let mut new = NewEvent::new(shape.event_type, encoded.codec, encoded.payload)
            .schema_version(shape.schema_version)
            .id(maker.id(record, &format!("{} {stream}", shape.event_type)));
        for tag in event.tags()? {
            new = new.tag(tag);
        }
        Ok(Some(vec![(stream, maker.with_metadata(new, record))]))
    }
}
