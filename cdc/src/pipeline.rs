//! Captured tables inside pipelines.

use annals_projections::pipeline::{Log, PipelineKey, Table};

use crate::row::TableRow;
use crate::table::TableOf;

/// Gives a pipeline the tables that were captured into its log.
pub trait CapturedTables {
    /// The rows of a captured table: each holds from the moment at which it was changed at the
    /// source. Whether the program keeps the table as a view does not matter.
    ///
    /// ```
    /// use annals_cdc::{CapturedTables as _, TableRow};
    /// # use annals_projections::pipeline::{Keyed, Log, PipelineKey};
    ///
    /// fn within_limits<Limit>(log: &Log, paid: &Keyed<Limit::Key, i64>)
    /// where
    ///     Limit: TableRow<Key: PipelineKey>,
    /// {
    ///     let limits = log.table_of::<Limit>();
    ///     paid.look_up(&limits, |cents, limit| {
    ///         let limit = limit.and_then(|limit| limit.row().ok());
    ///         (*cents, limit.is_some())
    ///     });
    /// }
    /// ```
    fn table_of<T: TableRow<Key: PipelineKey>>(&self) -> Table<T::Key, TableOf<T>>;
}

impl CapturedTables for Log {
    fn table_of<T: TableRow<Key: PipelineKey>>(&self) -> Table<T::Key, TableOf<T>> {
        self.table::<TableOf<T>>()
    }
}
