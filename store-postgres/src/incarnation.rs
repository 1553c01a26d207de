//! Which incarnation of the log this process reads and writes.
//!
//! Keys, names and versions are cached, and what they mean is only certain in the history that they
//! were read from. A server that crashed and lost commits that were not flushed, a standby that was
//! promoted, and a restored backup each begin another one: the number here goes up, and everything
//! that hangs on it is forgotten together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::postgres::{PgArguments, PgConnection, PgExecutor, PgRow};
use sqlx::query::Query;
use sqlx::{Error, Postgres, Row, query};
use uuid::Uuid;

use crate::database::Database;
use crate::row::number;
use crate::statements as sql;

/// What distinguishes one incarnation from another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    /// When the server was started.
    started: String,
    /// The incarnation that the schema names; none on a standby.
    run: Option<Uuid>,
    is_standby: bool,
}

/// What is known of the incarnation.
#[derive(Clone, Debug, Default)]
struct Known {
    log: Option<Uuid>,
    identity: Option<Identity>,
    /// The last position that was seen, and the id of its event.
    position: u64,
    event: Option<Uuid>,
}

/// The incarnation that everything cached was read from.
#[derive(Debug, Default)]
pub(crate) struct Incarnation {
    number: AtomicU64,
    known: Mutex<Known>,
}

/// What a connection says of its incarnation.
struct Seen {
    log: Uuid,
    identity: Identity,
    head: u64,
    head_event: Option<Uuid>,
    known_event: Option<Uuid>,
    /// Whether everything up to the head is durable, as far as the server says.
    is_durable: bool,
}

impl Seen {
    fn of(row: &PgRow) -> Result<Seen, Error> {
        let identity = Identity {
            started: row.try_get(1)?,
            run: row.try_get(2)?,
            is_standby: row.try_get(6)?,
        };
        Ok(Seen {
            log: row.try_get(0)?,
            identity,
            head: number(row, 3)?,
            head_event: row.try_get(4)?,
            known_event: row.try_get(5)?,
            is_durable: row.try_get(7)?,
        })
    }
}

impl Known {
    /// Whether what a connection says belongs to another incarnation than the one known.
    fn differs(&self, seen: &Seen) -> bool {
        if self.identity.is_none() {
            return false;
        }
        // A standby lags: it may not have the event yet.
        let lags = seen.identity.is_standby && seen.head < self.position;
        let has_another_event = self.event.is_some() && seen.known_event != self.event && !lags;
        has_another_event || self.is_elsewhere(&seen.identity)
    }

    /// Whether a primary says another identity than the one known.
    fn is_elsewhere(&self, seen: &Identity) -> bool {
        let known = self.identity.as_ref();
        !seen.is_standby && known.is_some_and(|known| known != seen)
    }
}

impl Incarnation {
    /// Goes up when another incarnation was noticed: what was cached before means nothing any more.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The incarnation that the schema named last.
    pub(crate) fn run(&self) -> Option<Uuid> {
        self.known().identity.as_ref().and_then(|known| known.run)
    }

    /// Remembers the event at a position.
    pub(crate) fn saw(&self, position: u64, event: Option<Uuid>) {
        let mut known = self.known();
        if position > known.position && event.is_some() {
            known.position = position;
            known.event = event;
        }
    }

    /// Asks a connection which incarnation it reads. Names the incarnation of a server that
    /// recovered, when this store `writes`.
    pub(crate) async fn check<C>(
        &self,
        database: &Database,
        connection: &mut C,
        writes: bool,
    ) -> Result<u64, Error>
    where
        for<'c> &'c mut C: PgExecutor<'c>,
    {
        let number = self.number();
        let position = self.known().position;
        let mut row = ask(database, sql::LOG_IDENTITY, position)
            .fetch_one(&mut *connection)
            .await?;
        let mut seen = Seen::of(&row)?;
        if writes && seen.identity.run.is_none() && !seen.identity.is_standby {
            query(database.text(sql::BEGIN_INCARNATION))
                .execute(&mut *connection)
                .await?;
            row = ask(database, sql::LOG_IDENTITY, position)
                .fetch_one(connection)
                .await?;
            seen = Seen::of(&row)?;
        }
        self.compare(database, number, position, seen)
    }

    /// As [`Incarnation::check`]; all that it saw is durable.
    pub(crate) async fn flush(
        &self,
        database: &Database,
        connection: &mut PgConnection,
    ) -> Result<u64, Error> {
        let number = self.number();
        let position = self.known().position;
        let row = ask(database, sql::LOG_IDENTITY_FLUSHED, position)
            .fetch_one(connection)
            .await?;
        self.compare(database, number, position, Seen::of(&row)?)
    }

    /// Takes in what was seen while the incarnation had this number; the head.
    fn compare(
        &self,
        database: &Database,
        mut number: u64,
        position: u64,
        seen: Seen,
    ) -> Result<u64, Error> {
        let head = seen.head;
        let mut known = self.known();
        if known.log.is_some_and(|log| log != seen.log) {
            let what = "it holds another log than the one that was opened; open the store again";
            return Err(Error::Configuration(what.into()));
        }
        // Another check got further meanwhile: the event that this one saw is compared by the next.
        // The identity is compared by each, because it is taken in by each.
        let differs = match known.position == position {
            true => known.differs(&seen),
            false => known.is_elsewhere(&seen.identity),
        };
        if differs {
            tracing::warn!(
                database = database.name,
                position,
                head = seen.head,
                "the server has another incarnation of the log than before (a crash, a fail-over \
                 or a restore): everything that was cached of it is forgotten"
            );
            number = self.number.fetch_add(1, Ordering::AcqRel) + 1;
            database.moves.begin_at(seen.head);
            database.forget();
            known.position = 0;
            known.event = None;
        }
        known.log = Some(seen.log);
        if !seen.identity.is_standby || known.identity.is_none() {
            known.identity = Some(seen.identity);
        }
        if seen.head >= known.position && seen.head_event.is_some() {
            known.position = seen.head;
            known.event = seen.head_event;
        }
        if seen.is_durable {
            database.durable.raise(number, head);
        }
        Ok(head)
    }

    /// Whether a transaction of an application reads the incarnation of this number. Nothing of
    /// it is taken in: it also sees what it has not committed.
    pub(crate) async fn is_read_by(
        &self,
        connection: &mut PgConnection,
        database: &Database,
        number: u64,
    ) -> Result<bool, Error> {
        let known = {
            let known = self.known();
            if self.number() != number {
                return Ok(false);
            }
            known.clone()
        };
        let row = ask(database, sql::LOG_IDENTITY, known.position)
            .fetch_one(connection)
            .await?;
        let seen = Seen::of(&row)?;
        if known.log.is_some_and(|log| log != seen.log) {
            let what = "the transaction is in a database with another log; begin it in the \
                        database of the store";
            return Err(Error::Configuration(what.into()));
        }
        Ok(!known.differs(&seen))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(
    database: &Database,
    statement: &'static str,
    position: u64,
) -> Query<'static, Postgres, PgArguments> {
    query(database.text(statement)).bind(position.cast_signed())
}

/// Something cached that is good for one incarnation.
#[derive(Debug, Default)]
pub(crate) struct Cached<T>(Mutex<(u64, T)>);

impl<T: Default> Cached<T> {
    /// What is cached of the incarnation of this number; nothing of another one.
    pub(crate) fn of<R>(&self, number: u64, with: impl FnOnce(&mut T) -> R) -> R {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.0 != number {
            *cached = (number, T::default());
        }
        with(&mut cached.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(started: &str, run: u128, is_standby: bool) -> Identity {
        Identity {
            started: started.into(),
            run: (!is_standby).then(|| Uuid::from_u128(run)),
            is_standby,
        }
    }

    fn seen(identity: Identity, head: u64, known_event: Option<u128>) -> Seen {
        Seen {
            log: Uuid::nil(),
            identity,
            head,
            head_event: None,
            known_event: known_event.map(Uuid::from_u128),
            is_durable: true,
        }
    }

    #[test]
    fn another_server_is_distinguished_whatever_position_was_asked() {
        let known = Known {
            log: Some(Uuid::nil()),
            identity: Some(identity("1", 1, false)),
            position: 5,
            event: Some(Uuid::from_u128(55)),
        };
        assert!(known.is_elsewhere(&identity("1", 2, false)));
        assert!(known.is_elsewhere(&identity("2", 1, false)));
        assert!(!known.is_elsewhere(&identity("1", 1, false)));
        assert!(!known.is_elsewhere(&identity("3", 0, true)));
        assert!(!Known::default().is_elsewhere(&identity("1", 1, false)));
    }

    #[test]
    fn another_history_is_distinguished_from_the_one_known() {
        let known = Known {
            log: Some(Uuid::nil()),
            identity: Some(identity("1", 1, false)),
            position: 5,
            event: Some(Uuid::from_u128(55)),
        };
        for (what, now, differs) in [
            (
                "the same",
                seen(identity("1", 1, false), 9, Some(55)),
                false,
            ),
            ("a crash", seen(identity("1", 2, false), 9, Some(55)), true),
            (
                "a restart",
                seen(identity("2", 1, false), 9, Some(55)),
                true,
            ),
            (
                "a restore",
                seen(identity("1", 1, false), 9, Some(66)),
                true,
            ),
            ("a rewind", seen(identity("1", 1, false), 4, None), true),
            (
                "a lagging standby",
                seen(identity("3", 0, true), 4, None),
                false,
            ),
            (
                "another standby",
                seen(identity("3", 0, true), 9, Some(66)),
                true,
            ),
        ] {
            assert_eq!(known.differs(&now), differs, "{what}");
        }
    }
}
