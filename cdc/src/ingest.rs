//! Taking in what a source says: each append holds whole transactions of the source and one mark,
//! which is progress and fence in one.

mod again;
mod append;
mod appends;
mod carry;
mod chunk;
mod events;
mod handle;
mod large;
mod live;
mod mark;
mod metrics;
mod operator;
mod part;
mod pause;
mod payload_buffer;
mod read_again;
mod record;
mod schemas;
mod source;
mod status;
mod sweep;
mod work;

use std::fmt;
use std::sync::Arc;

pub use events::EventMaker;
pub use handle::{IngestHandle, Ingests};
pub(crate) use mark::{EqualRecord, EqualRecords, Followed};
pub use mark::{Mark, Partial, Resume, SnapshotMark, last_mark, mark_stream};
pub use source::{Chunk, ReadAgain, Snapshotting, Source, SourceError, SourceFailure};
pub use status::{IngestState, IngestStatus, SourceStatus};

use crate::change::Change;
use crate::row::TableRow;
use crate::schema::TableName;
use crate::translate::{Translate, TranslateKnown, Translator};
use annals_core::{Event, NewEvent};

/// Rows of which a sweep or a truncate may keep the keys in memory.
const SWEEP_ROWS_MAX: usize = 10_000_000;

/// Takes the changes of a source into the log of a program, exactly once: a part of the program.
///
/// ```no_run
/// use annals_cdc::{Ingest, Postgres};
/// use annals_core::Annals;
/// use annals_runner::{Program, StartError, With as _};
///
/// # async fn example(db: Annals) -> Result<Program, StartError> {
/// let orders = Postgres::at("postgres://reader@db/shop").tables(["public.orders"]);
/// db.with(Ingest::named("shop").from(orders)).start().await
/// # }
/// ```
#[must_use = "nothing is taken in before the program starts"]
pub struct Ingest {
    pub(crate) name: &'static str,
    pub(crate) source: Option<Box<dyn Source>>,
    pub(crate) settings: Settings,
}

/// What an ingest was told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) prefix: String,
    pub(crate) sweep_rows_max: usize,
    pub(crate) expand_truncates: bool,
    pub(crate) only_translated: bool,
    pub(crate) translators: Vec<Arc<dyn Translator>>,
    pub(crate) digests: large::Digests,
    pub(crate) has_outbox: bool,
}

impl Settings {
    /// What to say when something is made of a table that is not taken in, where it is known what
    /// is.
    fn lacks_table(&self, name: &str, tables: &[TableName]) -> Option<String> {
        let mut read = self.translators.iter().filter_map(|of| of.reads());
        let is_lacking = |(_, table): &(_, TableName)| !tables.contains(table);
        let (what, table) = read.find(is_lacking).filter(|_| !tables.is_empty())?;
        let tables: Vec<_> = tables.iter().map(ToString::to_string).collect();
        Some(format!(
            "{what} table `{table}` is not among the tables of ingest `{name}`: it has {}",
            tables.join(", ")
        ))
    }
}

impl Ingest {
    /// The ingest of this name. Its marks are under the name: one with another name begins again.
    pub fn named(name: &'static str) -> Ingest {
        Ingest {
            name,
            source: None,
            settings: Settings {
                prefix: String::new(),
                sweep_rows_max: SWEEP_ROWS_MAX,
                expand_truncates: true,
                only_translated: false,
                translators: Vec::new(),
                digests: large::Digests::default(),
                has_outbox: false,
            },
        }
    }

    /// What it takes in.
    pub fn from(mut self, source: impl Source + 'static) -> Ingest {
        self.source = Some(Box::new(source));
        self
    }

    /// Streams and types of events begin with this: for a second database whose tables have the
    /// same names.
    pub fn prefix(mut self, prefix: &str) -> Ingest {
        prefix.clone_into(&mut self.settings.prefix);
        self
    }

    /// The keys of at most so many rows are kept in memory to compare a table or to expand a
    /// truncate: 10,000,000 unless said otherwise, of 24 bytes each.
    pub fn sweep_rows_max(mut self, rows: usize) -> Ingest {
        self.settings.sweep_rows_max = rows;
        self
    }

    /// A truncate is one event and no `deleted` for each row: for tables that are too large for
    /// that. Views of such a table keep the rows.
    pub fn truncates_unexpanded(mut self) -> Ingest {
        self.settings.expand_truncates = false;
        self
    }

    /// Changes of a table become what they mean: events of another type, in the append of the
    /// change. The function depends on nothing but the change.
    ///
    /// It sees the old row where the table sends it (`replica identity full`); elsewhere
    /// [`Before::Unknown`](crate::Before) or its key.
    pub fn translate<T, E, F>(mut self, translate: F) -> Ingest
    where
        T: TableRow,
        E: Event,
        F: Fn(&Change<T>) -> Option<(String, E)> + Send + Sync + 'static,
    {
        self.settings
            .translators
            .push(Arc::new(Translate::new(translate)));
        self
    }

    /// As [`translate`](Ingest::translate), for tables that do not send the old row of an update:
    /// the function is given the row as the log knows it, if it does. One read of the log an
    /// update, and the changes themselves must be stored.
    pub fn translate_known<T, E, F>(mut self, translate: F) -> Ingest
    where
        T: TableRow,
        E: Event,
        F: Fn(Option<&T>, &Change<T>) -> Option<(String, E)> + Send + Sync + 'static,
    {
        self.settings
            .translators
            .push(Arc::new(TranslateKnown::new(translate)));
        self
    }

    /// Values of this column are not stored, but the digest of each: `sha256:HEX of N bytes`. For
    /// columns that hold more than an event may (16 MiB unless the store says otherwise).
    ///
    /// ```
    /// use annals_cdc::Ingest;
    ///
    /// let shop = Ingest::named("shop").large_values_as_digest("public.documents", "scan");
    /// # let _ = shop;
    /// ```
    pub fn large_values_as_digest(mut self, table: &str, column: &str) -> Ingest {
        self.settings.digests.add(table, column);
        self
    }

    /// Rows of an outbox become the events that they hold, under their ids.
    pub fn outbox(mut self, mut outbox: crate::Outbox) -> Ingest {
        outbox.takes_messages = !std::mem::replace(&mut self.settings.has_outbox, true);
        self.settings.translators.push(Arc::new(outbox));
        self
    }

    /// What is translated is stored, and the changes themselves are not.
    pub fn only_translated(mut self) -> Ingest {
        self.settings.only_translated = true;
        self
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An event for a stream, before it is appended.
pub(crate) type Placed = (annals_core::StreamId, NewEvent);
