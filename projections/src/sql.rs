//! Read models in custom tables: the transaction of a step is handed to the projection.

mod batch;
mod drain;
mod hook;
mod program;
mod tables;
mod worker;

use std::future::Future;

use annals_core::{CustomTables, Event, GenerationId, Recorded};

pub use program::SqlProjectionSetup;
pub use tables::SqlProjectionHandle;

use crate::view::Poison;

/// The connection that a projection into custom tables gets.
pub type ConnectionOf<P> = <<P as SqlProjection>::Store as CustomTables>::Connection;

/// A read model in custom tables.
///
/// Events are handed over in the order of the log, each exactly once: what is done with the
/// connection is committed together with the checkpoint of the projection, under the fence of its
/// lease. Each event has a savepoint: one that fails is rolled back alone. The past is not kept.
///
/// Tables are built in generations, as views are: a raised [`VERSION`](SqlProjection::VERSION),
/// another set of event types, or a rebuild fills new ones beside those that serve. So tables are
/// named by [`Tables::name`], and what readers use is made in [`publish`](SqlProjection::publish),
/// which runs in the transaction of the switch.
///
/// On SQLite everything else that is written waits for the transaction: nothing may be awaited in
/// it, and an event must be handled quickly.
///
/// ```
/// # use annals_core::{CustomTables, Recorded};
/// # use annals_projections::{ConnectionOf, Poison, SqlProjection, Tables};
/// # #[derive(annals_macros::Event, serde::Serialize, serde::Deserialize)]
/// # #[event(category = "account", crate = "annals_core")]
/// # enum AccountEvent { Deposited { cents: i64 } }
/// # trait Database: CustomTables {
/// #     fn run(
/// #         connection: &mut Self::Connection,
/// #         statement: String,
/// #     ) -> Result<(), std::fmt::Error>;
/// # }
/// struct DailyTotals<S>(std::marker::PhantomData<fn() -> S>);
///
/// impl<S: Database> SqlProjection for DailyTotals<S> {
///     const NAME: &'static str = "daily-totals";
///     type Store = S;
///     type Event = AccountEvent;
///
///     async fn create(
///         &self, connection: &mut S::Connection, tables: &Tables,
///     ) -> Result<(), Poison> {
///         let table = tables.name("daily_totals");
///         let columns = "day text primary key, cents integer not null";
///         Ok(S::run(connection, format!("create table {table} ({columns})"))?)
///     }
///
///     async fn on(
///         &self,
///         connection: &mut S::Connection,
///         tables: &Tables,
///         event: &Recorded<AccountEvent>,
///     ) -> Result<(), Poison> {
///         let AccountEvent::Deposited { cents } = &**event;
///         let (table, day) = (tables.name("daily_totals"), event.record.occurred_at.date_naive());
///         let add = format!(
///             "insert into {table} values ('{day}', {cents})
///             on conflict (day) do update set cents = {table}.cents + {cents}"
///         );
///         Ok(S::run(connection, add)?)
///     }
///
///     async fn publish(
///         &self, connection: &mut S::Connection, tables: &Tables,
///     ) -> Result<(), Poison> {
///         S::run(connection, "drop view if exists daily_totals".into())?;
///         let table = tables.name("daily_totals");
///         let view = format!("create view daily_totals as select * from {table}");
///         Ok(S::run(connection, view)?)
///     }
///
///     async fn remove(
///         &self, connection: &mut S::Connection, tables: &Tables,
///     ) -> Result<(), Poison> {
///         Ok(S::run(connection, format!("drop table if exists {}", tables.name("daily_totals")))?)
///     }
/// }
/// ```
pub trait SqlProjection: Send + Sync + 'static {
    /// The name under which its checkpoint is kept. Must never change, and must differ from the
    /// names of all views.
    const NAME: &'static str;

    /// The version of its tables and handlers: raise it whenever they change, and new tables are
    /// built.
    const VERSION: u32 = 1;

    /// The store in whose database the tables are: that of the log, or another one.
    type Store: CustomTables;

    /// The events that it follows.
    type Event: Event;

    /// What an event is about: when one cannot be handled, it and the later ones of its key become
    /// dead letters until an operator decides, and all others go on. So the outcome for
    /// one key must not depend on events of another. At most 255 bytes; it looks at nothing but the
    /// event.
    ///
    /// Default: nothing, and an event that cannot be handled stops the projection.
    fn key(_: &Recorded<Self::Event>) -> Option<String> {
        None
    }

    /// Makes the tables of a generation. Runs once, in the transaction of its first step.
    ///
    /// # Errors
    ///
    /// Nothing is built until it succeeds.
    fn create(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> impl Future<Output = Result<(), Poison>> + Send;

    /// Takes in what happened.
    ///
    /// # Errors
    ///
    /// [`Poison`] when the event cannot be handled, or a statement failed: what it did is undone.
    /// It is [tried again](crate::Options::attempts). Then it becomes a dead letter of its
    /// [`key`](SqlProjection::key). Without one it stops the projection, because it is unknown what
    /// else its tables would miss, until it succeeds or is skipped with
    /// [`SqlProjectionHandle::skip_event`].
    fn on(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
        event: &Recorded<Self::Event>,
    ) -> impl Future<Output = Result<(), Poison>> + Send;

    /// Makes the tables of a generation the ones that readers use: a view with a name of its own,
    /// usually. Runs in the transaction of the switch, also when a rebuild is rolled back.
    ///
    /// # Errors
    ///
    /// Nothing is switched until it succeeds.
    fn publish(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> impl Future<Output = Result<(), Poison>> + Send;

    /// Drops the tables of a generation, also of one whose tables were never made. Runs in the
    /// transaction in which it is dropped.
    ///
    /// # Errors
    ///
    /// The generation stays.
    fn remove(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> impl Future<Output = Result<(), Poison>> + Send;
}

/// The tables of one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    generation: GenerationId,
}

impl Tables {
    pub(crate) fn of(generation: GenerationId) -> Tables {
        Tables { generation }
    }

    /// What a table (or an index) is called in this generation: `daily_totals` becomes
    /// `daily_totals_g3`.
    pub fn name(&self, table: &str) -> String {
        format!("{table}_g{}", self.generation)
    }

    /// The generation that these tables belong to.
    pub const fn generation(&self) -> GenerationId {
        self.generation
    }
}
