//! An application's own rows and its events in one transaction: staged there, numbered and checked
//! at its commit.

use std::sync::Arc;

use annals_core::{
    Append, AppendError, Appended, EventId, Failure, Incarnation, Placed, Position, StoreError,
    StreamState, Version, Violation, time_of,
};
use hashlink::LruCache;
use sqlx::postgres::{PgConnection, Postgres};
use sqlx::{Error, Transaction, query, query_as};
use uuid::Uuid;

use crate::database::{Database, ask};
use crate::error::{StoreFault, may_have_happened, refused};
use crate::incarnation::Cached;
use crate::known::durably_known;
use crate::page::first_match;
use crate::recheck::{Recheck, recheck};
use crate::request::{KindName, Request};
use crate::resolve::{resolve, resolve_kind};
use crate::staged::{insert, staged_before};
use crate::statements as sql;
use crate::store::PostgresStore;
use crate::streams;

/// Kinds that are cached.
const KINDS: usize = 1_024;

/// What the trigger says when something that was expected does not hold.
const REFUSED: &str = "AN001";
/// What it says when the append was staged before the server recovered.
const OUTDATED: &str = "AN003";

/// Keys of kinds, for staged appends.
#[derive(Debug, Default)]
pub(crate) struct Kinds(Cached<KnownKinds>);

#[derive(Debug)]
struct KnownKinds(LruCache<KindName, i32>);

impl Default for KnownKinds {
    fn default() -> KnownKinds {
        KnownKinds(LruCache::new(KINDS))
    }
}

impl Kinds {
    async fn key(&self, database: &Database, kind: &KindName) -> Result<i32, Error> {
        let number = database.incarnation.number();
        let known = self.0.of(number, |known| known.0.get(kind).copied());
        match known {
            Some(key) => Ok(key),
            None => {
                let key = resolve_kind(database, &database.pool, kind).await?;
                self.0.of(number, |known| known.0.insert(kind.clone(), key));
                Ok(key)
            }
        }
    }
}

/// An append that waits for the commit of the transaction that it was staged in;
/// [`PostgresStore::commit`] returns its outcome.
///
/// ```
/// # fn example(staged: &annals_postgres::Staged) {
/// if let Some(done) = staged.repeated() {
///     println!("this request was done before, at {}", done.last().position);
/// }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "`PostgresStore::commit` returns its outcome"]
pub struct Staged {
    request: Arc<Request>,
    repeated: Option<Appended>,
    /// The ids of the append that the transaction had staged before under the ids of this one.
    staged_before: Option<Vec<EventId>>,
}

impl Staged {
    /// The first result, when the ids were known: this is a repetition, nothing was staged, and
    /// what the application wrote with them the first time is there as well. None for a repetition
    /// of what the same transaction has staged: where that is, its commit says.
    pub const fn repeated(&self) -> Option<&Appended> {
        self.repeated.as_ref()
    }
}

impl PostgresStore {
    /// Stages an append in a transaction of the application's own, in the database of this store:
    /// it happens when that transaction commits, with everything else that the transaction writes,
    /// or not at all.
    ///
    /// The transaction must be READ COMMITTED, and its role must have the rights to append. Until
    /// its commit no other append waits for it, however long it takes; the positions are assigned,
    /// and the expectations checked, at the commit, which keeps the log locked until it is flushed.
    /// End it with [`PostgresStore::commit`]. Do not `set constraints all immediate` in it: from
    /// there to its end every other append would wait. When the future of this call is dropped,
    /// roll the transaction back: the append may have been staged in it.
    ///
    /// # Errors
    ///
    /// [`AppendError::Invalid`] for what can never succeed, and for an append that carries rows of
    /// inline views: nothing would write them. [`AppendError::IdClash`] when the ids belong to
    /// something else, [`AppendError::Conflict`] when its condition does not hold already (which is
    /// checked here and once more at the commit), or when it was
    /// [decided on](Append::decided_on) another incarnation of the log; else what the store has to
    /// say. Conflicts with expectations are found out at the commit.
    ///
    /// ```no_run
    /// use annals_core::{Append, NewEvent, StreamId};
    /// use annals_postgres::{PostgresStore, sqlx};
    ///
    /// # type Outcome = Result<(), Box<dyn std::error::Error>>;
    /// # async fn example(store: PostgresStore, pool: sqlx::PgPool) -> Outcome {
    /// let mut transaction = pool.begin().await?;
    /// let order = sqlx::query("insert into my_orders (name) values ('order-7')");
    /// order.execute(&mut *transaction).await?;
    /// let event = NewEvent::json("order.placed", b"{}".as_slice());
    /// let append = Append::default().event(StreamId::new("order-7")?, event);
    /// let staged = store.append_in(&mut transaction, append).await?;
    /// let appended = store.commit(transaction, [staged]).await?;
    /// println!("the order is at {}", appended[0].last().position);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn append_in(
        &self,
        transaction: &mut PgConnection,
        append: Append,
    ) -> Result<Staged, AppendError> {
        self.stage(transaction, append).await
    }

    /// Commits the transaction in which these were staged, and returns where their events are, in
    /// the order in which they are given.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] when something that one of them expects does not hold (with the
    /// violations of the first that does not): nothing of the transaction was written.
    /// [`AppendError::Unknown`] when the connection was lost on the way: all of it is written or
    /// nothing, and staging the same ids again finds out ([`Staged::repeated`]).
    /// [`AppendError::Store`] for what else the server has to say, the application's own
    /// constraints included; nothing was written, and with `Failure::Unavailable` trying the whole
    /// transaction again may help. When one of these was rolled back to a savepoint before, the
    /// rest is committed, and the text says so.
    pub async fn commit(
        &self,
        mut transaction: Transaction<'_, Postgres>,
        staged: impl IntoIterator<Item = Staged>,
    ) -> Result<Vec<Appended>, AppendError> {
        let staged: Vec<Staged> = staged.into_iter().collect();
        let database = self.database();
        // The server answers the commit of a transaction that has failed with a rollback, and no
        // error.
        if let Err(error) = query(database.text(sql::TRANSACTION_WRITES))
            .execute(&mut *transaction)
            .await
        {
            if may_have_happened(&error) {
                return Err(database.writing(&error).into());
            }
            return Err(aborted(error).into());
        }
        if let Err(error) = transaction.commit().await {
            if may_have_happened(&error) {
                return Err(AppendError::Unknown(database.writing(&error)));
            }
            // A refusal writes nothing that would flush what it was decided on.
            ask!(database, database.until_all_durable())?;
            return Err(
                said(&error, &staged).unwrap_or_else(|| refusal(error, &database.name).into())
            );
        }
        let mut all = Vec::with_capacity(staged.len());
        for Staged {
            request,
            repeated,
            staged_before,
        } in staged
        {
            if let Some(appended) = repeated {
                all.push(appended);
                continue;
            }
            let was_repeated = staged_before.is_some();
            let events = &request.append.events;
            let ids =
                staged_before.unwrap_or_else(|| events.iter().map(|(_, event)| event.id).collect());
            // It is committed; only the answer can still get lost.
            let found =
                ask!(database, durably_known(database, &ids)).map_err(AppendError::Unknown)?;
            let placed: Vec<Placed> = found
                .into_iter()
                .flatten()
                .map(|known| known.found.placed)
                .collect();
            if placed.len() != ids.len() {
                let context = "the transaction was committed without a staged append: it was \
                               rolled back to a savepoint, or staged in another transaction";
                return Err(StoreError::new(Failure::Invalid, context).into());
            }
            all.push(Appended::new(self.log_id(), placed, was_repeated));
        }
        if let Some(head) = all.iter().map(|appended| appended.last().position).max() {
            self.appended_to(head);
        }
        Ok(all)
    }

    async fn stage(
        &self,
        transaction: &mut PgConnection,
        append: Append,
    ) -> Result<Staged, AppendError> {
        let database = self.database();
        append.check_carries_no_rows()?;
        let request = Arc::new(self.request(Arc::new(append))?);
        let failed = |error: Error| database.writing(&error);
        let (isolation, staged_from): (String, Option<i64>) =
            query_as(database.text(sql::ISOLATION))
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed)?;
        if isolation != "read committed" {
            let context = format!(
                "events cannot be staged in a transaction that is {isolation}, only in READ \
                 COMMITTED"
            );
            return Err(StoreError::new(Failure::Invalid, context).into());
        }
        // What is expected is looked at when it matters, at the commit; only a repetition is known
        // for good.
        match ask!(database, recheck(database, self.log_id(), &request))? {
            Recheck::Repeated(appended) => {
                return Ok(Staged {
                    request,
                    repeated: Some(appended),
                    staged_before: None,
                });
            }
            Recheck::Refused(AppendError::Conflict(_)) | Recheck::Clear(_) => {}
            Recheck::Refused(error) => return Err(error),
        }
        // Everything from here on is of one incarnation: a transaction ends with its server.
        let number = database.incarnation.number();
        let is_read = database
            .incarnation
            .is_read_by(transaction, database, number)
            .await
            .map_err(failed)?;
        if !is_read {
            // So that this process notices, and the next attempt goes by what is there now.
            ask!(database, database.check_history())?;
        }
        let now = Incarnation::numbered(self.log_id(), database.incarnation.number());
        request.append.check_incarnation(now)?;
        if !is_read {
            return Err(outdated(&database.name).into());
        }
        if let Some(from) = staged_from {
            let before = staged_before(database, transaction, &request, from).await;
            let before = before.map_err(failed)?.map_err(AppendError::IdClash)?;
            if before.is_some() {
                return Ok(Staged {
                    request,
                    repeated: None,
                    staged_before: before,
                });
            }
        }
        let mut checked_to = 0;
        if let Some(conditional) = &request.condition {
            let condition = &conditional.condition;
            let after = conditional.after();
            let (found, head) = ask!(database, async {
                let history = database.incarnation.number();
                let (found, head) = first_match(database, condition, after).await?;
                let position = found.map_or(0, Position::get);
                database.until_durable(history, position).await?;
                Ok((found, head))
            })?;
            if let Some(position) = found {
                return Err(AppendError::Conflict(vec![Violation::Condition {
                    position,
                }]));
            }
            checked_to = head.max(after.get());
        }
        let run = database.incarnation.run();
        let keyed = async {
            let keys = self.keys(&request).await?;
            let mut kinds = Vec::with_capacity(request.kinds.len());
            for kind in &request.kinds {
                kinds.push(self.kinds().key(database, kind).await?);
            }
            Ok((keys, kinds))
        };
        let (keys, kinds) = match keyed.await {
            Ok(keyed) => keyed,
            Err(error) => return Err(database.not_written(error).await.into()),
        };
        if database.incarnation.number() != number {
            return Err(outdated(&database.name).into());
        }
        let recorded = time_of(&*request.clock)?.timestamp_micros();
        insert(
            database,
            transaction,
            &request,
            (run, recorded),
            &keys,
            &kinds,
            checked_to,
        )
        .await
        .map_err(failed)?;
        Ok(Staged {
            request,
            repeated: None,
            staged_before: None,
        })
    }

    /// The keys of the request's streams, made outside of the application's transaction, so that
    /// no other append waits for it.
    async fn keys(&self, request: &Request) -> Result<Vec<i64>, Error> {
        let database = self.database();
        let names: Vec<_> = request
            .streams
            .iter()
            .map(|touched| touched.stream.clone())
            .collect();
        let found = resolve(database, &database.pool, &names, true).await?;
        let key = |name| {
            found
                .iter()
                .find(|(found, ..)| found == name)
                .map(|(_, key, _)| *key)
        };
        names
            .iter()
            .map(|name| key(name).ok_or(Error::RowNotFound))
            .collect()
    }
}

/// What the trigger found, in its own words: the id of the append's first event; of each stream
/// that is not as expected its place, status and version; and where the condition is matched.
type Found = (Uuid, Vec<(usize, i16, u64)>, Option<u64>);

/// The conflict that the trigger speaks of.
fn said(error: &Error, staged: &[Staged]) -> Option<AppendError> {
    let refused = refused(error).filter(|refused| refused.code() == REFUSED)?;
    let (first, found, matching): Found = serde_json::from_str(refused.detail()?).ok()?;
    let is_of = |staged: &&Staged| {
        let begins = staged.request.append.events[0].1.id;
        staged.staged_before.is_none() && begins.as_uuid() == &first
    };
    let request = &staged.iter().find(is_of)?.request;
    let mut violations = Vec::new();
    for (index, code, version) in found {
        let touched = request.streams.get(index)?;
        let mut found = StreamState::absent();
        found.status = streams::status(code, version);
        found.version = Version::new(version);
        let stream = touched.stream.clone();
        let expected = touched.expected;
        violations.push(Violation::Stream {
            index,
            stream,
            expected,
            found,
        });
    }
    violations.extend(matching.map(|position| Violation::Condition {
        position: Position::new(position),
    }));
    Some(AppendError::Conflict(violations))
}

/// The transaction was undone before its commit was asked for.
fn aborted(error: Error) -> StoreError {
    let context =
        "nothing was written: a statement of the transaction had failed before its commit";
    StoreError::new(Failure::Invalid, context).because(error)
}

/// The keys of a staged append are of another incarnation.
fn outdated(name: &str) -> StoreError {
    let context = format!(
        "nothing was written: the server of `{name}` recovered after the append was staged; begin \
         the transaction again"
    );
    StoreError::new(Failure::Unavailable, context)
}

/// What else the server refused at the commit.
fn refusal(error: Error, name: &str) -> StoreError {
    match refused(&error).map(|refused| (refused.code(), refused.constraint())) {
        Some((OUTDATED, _)) => outdated(name),
        Some(("23505", Some("event_by_id"))) => {
            let context =
                "the ids were appended by another in the meantime, and the transaction was undone";
            StoreError::new(Failure::Unavailable, context).because(error)
        }
        // A constraint of the application's own.
        Some((code, _)) if code.starts_with("23") => StoreError::new(
            Failure::Invalid,
            "the transaction was refused at its commit",
        )
        .because(error),
        _ => StoreFault::of(&error, "writing", name).error(),
    }
}
