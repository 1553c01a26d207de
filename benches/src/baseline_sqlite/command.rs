//! Commands by hand, on one connection and with one commit each.

use std::collections::HashMap;

use annals::Aggregate;
use annals::store::NewEvent;

use super::Baseline;
use super::append::Known;
use crate::Outcome;
use crate::account::{self, Account};
use crate::command::Deposits;
use crate::rate::{Rate, Watch};

impl Baseline {
    /// Each command folds the account, unless it is one of `cached` that were used before, decides,
    /// inserts and commits.
    ///
    /// # Errors
    ///
    /// Those of SQLite and serde_json.
    pub fn deposits(&self, deposits: &Deposits, cached: usize) -> Outcome<Rate> {
        let shares: Vec<_> = (0..deposits.tasks)
            .map(|task| deposits.share(task))
            .collect();
        let count = shares.iter().map(Vec::len).sum();
        let kinds = self.kinds()?;
        let mut states: HashMap<usize, Account> = HashMap::new();
        let watch = Watch::start();
        let mut known = Known {
            kinds: self.kind_keys()?,
            ..Known::default()
        };
        let mut head = self
            .connection
            .prepare_cached(include_str!("../sql/head.sql"))?;
        known.position = head.query_row([], |row| row.get(0))?;
        let mut insert = self
            .connection
            .prepare_cached(include_str!("../sql/insert_event.sql"))?;
        for (number, cents) in shares.into_iter().flatten() {
            let stream = account::stream(number)?;
            self.connection
                .prepare_cached("begin immediate")?
                .execute([])?;
            let mut account = match states.remove(&number) {
                Some(account) => account,
                None => match self.stream_key(&stream)? {
                    Some(key) => {
                        let (version, account) = self.fold(key, 0, Account::default(), &kinds)?;
                        known.streams.insert(stream.clone(), (key, version));
                        account
                    }
                    None => Account::default(),
                },
            };
            let event = account.deposit(cents)?;
            let mut new = NewEvent::of(&event)?;
            new.metadata.correlation = Some(*new.id.as_uuid());
            let digest = new.digest();
            self.insert(&mut insert, &mut known, &stream, &[(new, digest)])?;
            self.connection.prepare_cached("commit")?.execute([])?;
            account.apply(&event);
            if states.len() < cached {
                states.insert(number, account);
            }
        }
        Ok(watch.stop(count))
    }
}
