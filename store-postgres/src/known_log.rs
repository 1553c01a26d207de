//! The incarnation that a writer knows: which one it is, and how far it goes.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, Error, Row};
use uuid::Uuid;

use crate::row::{int8, number};

/// What was last seen of the log, in one moment. Everything that a writer has cached was read from
/// this incarnation of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownLog {
    /// None when the server has not been given one since it recovered.
    pub(crate) incarnation: Option<Uuid>,
    pub(crate) head: u64,
    /// The id of the event at the head.
    pub(crate) head_event: Option<Uuid>,
    /// The last change of a stream.
    pub(crate) changes: i64,
}

impl KnownLog {
    /// Reads the columns of `sql/log_head.sql`.
    pub(crate) fn of(row: &PgRow) -> Result<KnownLog, Error> {
        Ok(KnownLog {
            head: number(row, 0)?,
            head_event: row.try_get(1)?,
            changes: int8(row, 2)?,
            incarnation: row.try_get(3)?,
        })
    }

    /// The first parameters of the functions that append.
    pub(crate) fn give(&self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        self.give_at(self.head, self.head_event, arguments)
    }

    /// As [`KnownLog::give`], with another event of this incarnation in the place of the head.
    pub(crate) fn give_at(
        &self,
        position: u64,
        event: Option<Uuid>,
        arguments: &mut PgArguments,
    ) -> Result<(), BoxDynError> {
        arguments.add(self.incarnation)?;
        arguments.add(position.cast_signed())?;
        arguments.add(event)?;
        arguments.add(self.changes)
    }
}
