//! Selecting the same columns and reading the payloads with serde_json into the same enum.

use std::collections::HashMap;

use annals::StreamId;
use rusqlite::{OptionalExtension, Row};
use serde::Deserialize;

use super::Baseline;
use crate::Outcome;
use crate::account::{self, Account, AccountEvent};
use crate::load::Loads;
use crate::rate::{Rate, Watch};
use crate::replay::{Replayed, cents};

/// What a kind is, by its key.
pub(super) type Kinds = Vec<Content>;

/// How the payload of a kind is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Other,
    Opened,
    Deposited,
    Withdrawn,
    Closed,
}

impl Content {
    /// The event of this kind that the payload holds.
    pub(crate) fn read(self, payload: &[u8]) -> Outcome<AccountEvent> {
        Ok(match self {
            Content::Opened => AccountEvent::Opened {
                owner: serde_json::from_slice::<Owner>(payload)?.owner,
            },
            Content::Deposited => AccountEvent::Deposited {
                cents: serde_json::from_slice::<Cents>(payload)?.cents,
            },
            Content::Withdrawn => AccountEvent::Withdrawn {
                cents: serde_json::from_slice::<Cents>(payload)?.cents,
            },
            Content::Closed => AccountEvent::Closed,
            Content::Other => return Err("an event of another type".into()),
        })
    }
}

#[derive(Deserialize)]
struct Owner {
    owner: String,
}

#[derive(Deserialize)]
struct Cents {
    cents: i64,
}

/// Every column of a row as a Rust value, with the event; what it owns is the event alone.
#[allow(dead_code, reason = "they are read because Annals reads them")]
pub(super) struct Read {
    pub(super) position: i64,
    pub(super) stream: i64,
    pub(super) version: i64,
    append_index: u32,
    occurred_at: i64,
    pub(super) recorded_at: i64,
    id: [u8; 16],
    tags: Option<String>,
    metadata: Option<Vec<u8>>,
    pub(super) event: AccountEvent,
}

pub(super) fn read(row: &Row<'_>, kinds: &Kinds) -> Outcome<Read> {
    let payload = row.get_ref(10)?.as_blob()?;
    let kind = usize::try_from(row.get::<_, i64>(3)?)?;
    let event = kinds
        .get(kind)
        .copied()
        .unwrap_or(Content::Other)
        .read(payload)?;
    Ok(Read {
        position: row.get(0)?,
        stream: row.get(1)?,
        version: row.get(2)?,
        append_index: row.get(4)?,
        occurred_at: row.get(5)?,
        recorded_at: row.get(6)?,
        id: row.get(7)?,
        tags: row.get(8)?,
        metadata: row.get(9)?,
        event,
    })
}

impl Baseline {
    pub(super) fn kind_keys(&self) -> Outcome<HashMap<String, i64>> {
        let mut statement = self.connection.prepare(include_str!("../sql/kinds.sql"))?;
        let keys = statement.query_map([], |row| Ok((row.get(1)?, row.get(0)?)))?;
        Ok(keys.collect::<Result<_, _>>()?)
    }

    pub(super) fn kinds(&self) -> Outcome<Kinds> {
        let mut kinds = Kinds::new();
        for (name, key) in self.kind_keys()? {
            let key = usize::try_from(key)?;
            kinds.resize(kinds.len().max(key + 1), Content::Other);
            kinds[key] = match &*name {
                "account.opened" => Content::Opened,
                "account.deposited" => Content::Deposited,
                "account.withdrawn" => Content::Withdrawn,
                "account.closed" => Content::Closed,
                _ => Content::Other,
            };
        }
        Ok(kinds)
    }

    pub(super) fn stream_key(&self, stream: &StreamId) -> Outcome<Option<i64>> {
        let mut key = self
            .connection
            .prepare_cached(include_str!("../sql/stream_key.sql"))?;
        Ok(key
            .query_row([stream.as_str()], |row| row.get(0))
            .optional()?)
    }

    /// The whole log in one cursor; nothing is kept of an event but its sum.
    ///
    /// # Errors
    ///
    /// Those of SQLite and serde_json.
    pub fn replay(&self) -> Outcome<Replayed> {
        let watch = Watch::start();
        let kinds = self.kinds()?;
        let mut count = 0;
        let mut sum = 0;
        let mut statement = self
            .connection
            .prepare_cached(include_str!("../sql/log.sql"))?;
        let mut rows = statement.query([1, i64::MAX])?;
        while let Some(row) = rows.next()? {
            sum += cents(&read(row, &kinds)?.event);
            count += 1;
        }
        Ok(Replayed {
            rate: watch.stop(count),
            cents: sum,
        })
    }

    /// Folds one stream again and again, from its newest snapshot or from its beginning.
    ///
    /// # Errors
    ///
    /// Those of SQLite and serde_json, and a state that is not what was written.
    pub fn load(&self, loads: &Loads, with_snapshot: bool) -> Outcome<Rate> {
        let stream = account::stream(0)?;
        let kinds = self.kinds()?;
        let watch = Watch::start();
        for _ in 0..loads.loads {
            self.connection.prepare_cached("begin")?.execute([])?;
            let key = self.stream_key(&stream)?.ok_or("the stream is missing")?;
            let (version, _) = match with_snapshot {
                true => {
                    let mut snapshot = self
                        .connection
                        .prepare_cached(include_str!("../sql/snapshot.sql"))?;
                    let (version, payload) = snapshot.query_row([key], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
                    })?;
                    self.fold(key, version, serde_json::from_slice(&payload)?, &kinds)?
                }
                false => self.fold(key, 0, Account::default(), &kinds)?,
            };
            self.connection.prepare_cached("commit")?.execute([])?;
            if version != loads.events as i64 {
                return Err(format!("loaded version {version} of {}", loads.events).into());
            }
        }
        Ok(watch.stop(loads.loads))
    }

    /// The state after `version`, and the version that it is at then.
    pub(super) fn fold(
        &self,
        key: i64,
        mut version: i64,
        mut account: Account,
        kinds: &Kinds,
    ) -> Outcome<(i64, Account)> {
        use annals::Aggregate;

        let mut statement = self
            .connection
            .prepare_cached(include_str!("../sql/stream.sql"))?;
        let mut rows = statement.query([key, version + 1])?;
        while let Some(row) = rows.next()? {
            let read = read(row, kinds)?;
            account.apply(&read.event);
            version = read.version;
        }
        Ok((version, account))
    }
}
