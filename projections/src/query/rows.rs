//! Many rows: in the order of their keys or of an index, now or as of a moment, page by page.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::{Bound, RangeBounds};
use std::pin::Pin;
use std::time::Duration;

use annals_core::{Direction, Generation, Invalid, Moment, ReadRows, RowPlace, RowsBy, Token};

use annals_runner::ViewError;

use super::ViewHandle;
use super::filling::Filling;
use crate::fold::decoded;
use crate::key::ViewKey;
use crate::view::View;

/// Rows about to be read. Without more: the first thousand, in the order of their keys.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_projections::{Program, View, ViewError};
/// # async fn example<Balance: View<Key = u64> + std::fmt::Debug>(
/// #     db: Program,
/// # ) -> Result<(), ViewError> {
/// let mut page = db.view::<Balance>().rows().keys(100..200).limit(20).await?;
/// for row in &page.rows {
///     println!("{}: {:?}", row.key, row.value);
/// }
/// let rest = db.view::<Balance>().rows().keys(100..200).after(page.next.take()).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until it is awaited"]
pub struct RowsOf<V: View> {
    views: ViewHandle<V>,
    by: RowsBy,
    refused: Option<Invalid>,
    after: Option<RowPlace>,
    limit: usize,
    direction: Direction,
    at_least: Option<Token>,
    wait: Duration,
    as_of: Option<Moment>,
}

/// A page of rows, all of one moment.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct RowsFound<V: View> {
    /// The rows, in the order that was asked for.
    pub rows: Vec<RowEntry<V>>,
    /// Where to go on, when there may be more: for [`RowsOf::after`].
    pub next: Option<RowPlace>,
}

/// A row and its key.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowEntry<V: View> {
    /// The key.
    pub key: V::Key,
    /// The row.
    pub value: V,
}

impl<V: View> RowsOf<V> {
    pub(super) fn new(views: ViewHandle<V>) -> RowsOf<V> {
        let by = RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded);
        let limit = annals_core::PAGE_EVENTS;
        let direction = Direction::Forward;
        RowsOf {
            views,
            by,
            refused: None,
            after: None,
            limit,
            direction,
            at_least: None,
            wait: ViewHandle::<V>::WAIT,
            as_of: None,
        }
    }

    /// Only keys in this range.
    pub fn keys(mut self, range: impl RangeBounds<V::Key>) -> RowsOf<V> {
        let text = |bound: Bound<&V::Key>| bound.map(V::Key::to_key);
        self.by = RowsBy::KeyRange(text(range.start_bound()), text(range.end_bound()));
        self
    }

    /// Only these keys; those without a row are not in the answer.
    pub fn of(mut self, keys: impl IntoIterator<Item = V::Key>) -> RowsOf<V> {
        self.by = RowsBy::Keys(keys.into_iter().map(|key| key.to_key()).collect());
        self
    }

    /// Only rows whose entry in the index `name` is in the range, in the order of the entries. An
    /// entry is ordered as a key is, and the range is of the index's own type; rows whose entry is
    /// absent are in no range.
    pub fn by_index<K: ViewKey>(mut self, name: &str, range: impl RangeBounds<K>) -> RowsOf<V> {
        let text = |bound: Bound<&K>| bound.map(K::to_key);
        let mut range = (text(range.start_bound()), text(range.end_bound()));
        let index = V::INDEXES.iter().position(|index| *index == name);
        if let Some(index) = index.and_then(|index| V::index_types().get(index).copied()) {
            match index.range::<K>(name, range) {
                Ok(entries) => range = entries,
                Err(refused) => {
                    self.refused = Some(refused);
                    return self;
                }
            }
        }
        self.by = RowsBy::Index {
            name: name.into(),
            range,
        };
        self
    }

    /// After where a page ended.
    pub fn after(mut self, place: Option<RowPlace>) -> RowsOf<V> {
        self.after = place;
        self
    }

    /// At most so many rows (at least one).
    pub fn limit(mut self, rows: usize) -> RowsOf<V> {
        self.limit = rows.max(1);
        self
    }

    /// From the end.
    pub fn backward(mut self) -> RowsOf<V> {
        self.direction = Direction::Backward;
        self
    }

    /// Waits until the view has come as far as this.
    pub fn at_least(mut self, token: impl Into<Token>) -> RowsOf<V> {
        self.at_least = Some(token.into());
        self
    }

    /// Waits at most so long. Default: [`ViewHandle::WAIT`].
    pub fn within(mut self, wait: Duration) -> RowsOf<V> {
        self.wait = wait;
        self
    }

    /// As they were at a moment. By keys only, oldest key first.
    pub fn as_of(mut self, moment: impl Into<Moment>) -> RowsOf<V> {
        self.as_of = Some(moment.into());
        self
    }

    async fn read(mut self) -> Result<RowsFound<V>, ViewError> {
        if let Some(refused) = self.refused.take() {
            return Err(refused.into());
        }
        if self.views.is_live() {
            self.at_least
                .iter()
                .try_for_each(|token| self.views.check_token(token))?;
            let asked = self.views.asked(self.as_of, None).await?;
            let page = (self.limit, self.direction);
            return self
                .views
                .page_on_demand(&self.by, self.after.as_ref(), page, &asked)
                .await;
        }
        let live = self
            .views
            .live_at_least(self.at_least.as_ref(), self.wait)
            .await?;
        match self.as_of.clone() {
            Some(moment) => self.read_past(live, moment).await,
            None => self.read_now(live).await,
        }
    }

    async fn read_now(self, live: Generation) -> Result<RowsFound<V>, ViewError> {
        let by = self.views.stored_rows(self.by);
        let mut read = ReadRows::of(live.id, by)
            .after(self.after)
            .limit(self.limit);
        read.direction = self.direction;
        let page = self.views.context.views.read_rows(read).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            if let Some(value) = decoded(&row.key, Some(&row.value))? {
                rows.push(RowEntry {
                    key: self.views.typed_key(&row.key)?,
                    value,
                });
            }
        }
        Ok(RowsFound {
            rows,
            next: page.next,
        })
    }

    async fn read_past(self, live: Generation, moment: Moment) -> Result<RowsFound<V>, ViewError> {
        let views = &self.views;
        let (generation, position) = views.at_moment(live, moment, self.wait).await?;
        let by = views.stored_rows(self.by);
        let mut after = self.after.map(|place| place.key);
        let mut rows = Vec::new();
        let mut filling = Filling::default();
        loop {
            let wanted = filling.rows_next().min(self.limit - rows.len());
            let keys = match &by {
                RowsBy::Keys(keys) if self.direction == Direction::Forward => {
                    let is_after = |key: &&String| after.as_ref().is_none_or(|after| *key > after);
                    let mut keys: Vec<String> = keys.iter().filter(is_after).cloned().collect();
                    keys.sort_unstable();
                    keys.dedup();
                    keys.truncate(wanted);
                    keys
                }
                RowsBy::KeyRange(from, to) if self.direction == Direction::Forward => {
                    views
                        .context
                        .views
                        .past_keys(
                            generation.id,
                            (from.clone(), to.clone()),
                            after.as_deref(),
                            wanted,
                        )
                        .await?
                }
                _ => {
                    return Err(annals_core::Invalid::new(
                        "the past is read by keys, oldest key first",
                    )
                    .into());
                }
            };
            let values = views.past_rows(&generation, &keys, position).await?;
            let is_last = keys.len() < wanted;
            let mut read = 0;
            for (key, (value, bytes)) in keys.iter().zip(values) {
                read += 1;
                filling.take(bytes);
                if let Some(value) = value {
                    rows.push(RowEntry {
                        key: views.typed_key(key)?,
                        value,
                    });
                }
                if filling.is_full() {
                    break;
                }
            }
            if is_last && read == keys.len() {
                return Ok(RowsFound { rows, next: None });
            }
            after = keys.into_iter().nth(read.saturating_sub(1));
            if rows.len() >= self.limit || filling.is_full() {
                return Ok(RowsFound {
                    rows,
                    next: after.map(|key| RowPlace {
                        entry: String::new(),
                        key,
                    }),
                });
            }
        }
    }
}

impl<V: View> IntoFuture for RowsOf<V> {
    type Output = Result<RowsFound<V>, ViewError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<V: View> fmt::Debug for RowsOf<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowsOf")
            .field("view", &V::NAME)
            .field("by", &self.by)
            .field("as_of", &self.as_of)
            .finish_non_exhaustive()
    }
}
