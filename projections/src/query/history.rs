//! How rows became what they are: every version of one, and what changed between two moments.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::ControlFlow;
use std::pin::Pin;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Generation, History, Invalid, Moment, Position, RowVersion};
use bytes::Bytes;

use annals_runner::ViewError;

use super::ViewHandle;
use super::filling::Filling;
use crate::fold::{RowVersionBefore, Versions, decoded, encode, interval_end};
use crate::key::ViewKey;
use crate::view::View;

/// The past of one row about to be read. Without more: its first hundred versions.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_projections::{Program, View, ViewError};
/// # async fn example<Balance: View<Key = String> + std::fmt::Debug>(
/// #     db: Program,
/// # ) -> Result<(), ViewError> {
/// let page = db.view::<Balance>().history("alice").await?;
/// for version in &page.versions {
///     println!("since {}: {:?}", version.recorded_at, version.value);
/// }
/// let rest = db.view::<Balance>().history("alice").after(page.next.unwrap_or_default()).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until it is awaited"]
pub struct HistoryOf<V: View> {
    views: ViewHandle<V>,
    key: V::Key,
    after: Position,
    limit: usize,
}

/// A page of the past of a row.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowHistory<V: View> {
    /// The versions, oldest first; each differs from the one before it.
    pub versions: Vec<VersionOf<V>>,
    /// Where to go on, when there may be more: for [`HistoryOf::after`].
    pub next: Option<Position>,
}

/// What a row was for a while.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct VersionOf<V: View> {
    /// The row, or nothing when there was none.
    pub value: Option<V>,
    /// The position of the event that made it so.
    pub from: Position,
    /// When that event was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The position of the event that ended it, and when that one was recorded; nothing for what
    /// the row is now.
    pub until: Option<(Position, DateTime<Utc>)>,
}

/// What changed between two moments, about to be read. Without more: the first thousand keys that
/// were touched.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_projections::{Program, View, ViewError};
/// # async fn example<Balance: View<Key = String> + std::fmt::Debug>(
/// #     db: Program,
/// # ) -> Result<(), ViewError> {
/// let view = db.view::<Balance>();
/// let page = view.changed_between("2026-03-30T00:00:00Z", "2026-03-31T00:00:00Z").await?;
/// for change in &page.changes {
///     println!("{}: {:?} became {:?}", change.key, change.before, change.after);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until it is awaited"]
pub struct ChangedBetween<V: View> {
    views: ViewHandle<V>,
    from: Moment,
    to: Moment,
    after: Option<V::Key>,
    limit: usize,
}

/// A page of what changed between two moments.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Changed<V: View> {
    /// Rows that are not the same at both moments, in the order of their keys. A page may have none
    /// and still go on.
    pub changes: Vec<RowDiff<V>>,
    /// Where to go on, when there may be more: for [`ChangedBetween::after`].
    pub next: Option<V::Key>,
    /// The positions that the moments are.
    pub between: (Position, Position),
}

/// A row at two moments.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowDiff<V: View> {
    /// Its key.
    pub key: V::Key,
    /// What it was at the first moment.
    pub before: Option<V>,
    /// What it was at the second.
    pub after: Option<V>,
}

impl<V: View> ViewHandle<V> {
    /// The past of one row: what it was, from when to when. Independent of how events were batched.
    pub fn history(&self, key: impl Into<V::Key>) -> HistoryOf<V> {
        HistoryOf {
            views: self.clone(),
            key: key.into(),
            after: Position::START,
            limit: 100,
        }
    }

    /// Rows that are not the same at two moments, each a position of the log or a recorded time.
    pub fn changed_between(
        &self,
        from: impl Into<Moment>,
        to: impl Into<Moment>,
    ) -> ChangedBetween<V> {
        ChangedBetween {
            views: self.clone(),
            from: from.into(),
            to: to.into(),
            after: None,
            limit: 1_000,
        }
    }
}

impl<V: View> HistoryOf<V> {
    /// After where a page ended.
    pub fn after(mut self, position: Position) -> HistoryOf<V> {
        self.after = position;
        self
    }

    /// At most so many versions (at least one).
    pub fn limit(mut self, versions: usize) -> HistoryOf<V> {
        self.limit = versions.max(1);
        self
    }

    async fn read(self) -> Result<RowHistory<V>, ViewError> {
        let views = &self.views;
        let key = views.key(&self.key)?;
        let generation = keeping_the_past::<V>(views.live().await?)?;
        // One more, which ends the last one of the page.
        let mut found = self.found(&generation, &key).await?;
        let most = page_of(&found, self.limit);
        let next = (found.len() > most).then(|| found[most - 1].from);
        let ends = found.split_off(most);
        let mut versions: Vec<VersionOf<V>> = Vec::with_capacity(found.len());
        for RowVersionBefore {
            from,
            recorded_at,
            value,
        } in found
        {
            if let Some(before) = versions.last_mut() {
                before.until = Some((from, recorded_at));
            }
            versions.push(VersionOf {
                value: decoded(&key, value.as_ref())?,
                from,
                recorded_at,
                until: None,
            });
        }
        if let (Some(last), Some(end)) = (versions.last_mut(), ends.first()) {
            last.until = Some((end.from, end.recorded_at));
        }
        Ok(RowHistory { versions, next })
    }

    /// One version more than a page has, when there is one.
    async fn found(
        &self,
        generation: &Generation,
        key: &str,
    ) -> Result<Vec<RowVersionBefore>, ViewError> {
        let store = &self.views.context.views;
        let mut at = self.after;
        let mut page = VersionsPage {
            after: self.after,
            limit: self.limit,
            found: Vec::new(),
            filling: Filling::default(),
            before: None,
        };
        loop {
            let intervals = store
                .row_versions(
                    generation.id,
                    key,
                    (at, Position::MAX),
                    page.filling.rows_next().min(self.limit).min(1_000) + 1,
                )
                .await?;
            let Some(last) = intervals.last() else {
                return Ok(page.found);
            };
            at = last.up_to;
            for interval in intervals {
                let since = generation.history_since;
                let taken = if page.before.is_none() && interval.up_to <= since {
                    // How it became what it was then is forgotten.
                    page.before = Some(None);
                    page.take(whole(interval))
                } else {
                    if page.before.is_none() {
                        let past = store
                            .read_past(generation.id, &[key.to_owned()], interval.after.max(since))
                            .await?;
                        page.before = Some(
                            past.into_iter()
                                .next()
                                .and_then(|row| row.base)
                                .and_then(|base| base.value),
                        );
                    }
                    self.versions_of(key, interval, &mut page).await?
                };
                if taken.is_break() {
                    return Ok(page.found);
                }
            }
        }
    }

    /// Takes the versions that a stored interval consists of, until the page has enough.
    async fn versions_of(
        &self,
        key: &str,
        interval: RowVersion,
        page: &mut VersionsPage,
    ) -> Result<ControlFlow<()>, ViewError> {
        if interval.after.next() == interval.up_to {
            return Ok(page.take(whole(interval)));
        }
        let base = page.before.clone().flatten();
        let mut versions = Versions::<V>::from(key, base.as_ref())?;
        let views = &self.views;
        let mut pages = views.steps_between(interval.after, interval.up_to).await?;
        let mut last = None;
        while let Some(steps) = pages.next().await? {
            let taken = versions.take(&steps, |version| {
                last = Some(version.value.clone());
                page.take(version)
            })?;
            if taken.is_break() {
                return Ok(taken);
            }
        }
        // What was kept is what readers got.
        match last.is_some_and(|last| last != interval.value) {
            true => Ok(page.take(whole(interval))),
            false => Ok(ControlFlow::Continue(())),
        }
    }
}

/// What a row was at the end of an interval, as if that were all.
fn whole(interval: RowVersion) -> RowVersionBefore {
    RowVersionBefore {
        from: interval.up_to,
        recorded_at: interval.recorded_at,
        value: interval.value,
    }
}

/// The versions of a page, and the one that ends its last one.
struct VersionsPage {
    after: Position,
    limit: usize,
    found: Vec<RowVersionBefore>,
    filling: Filling,
    /// What the row was before; nothing while that is not known.
    before: Option<Option<Bytes>>,
}

impl VersionsPage {
    /// Takes the next version; breaks once no more is needed.
    fn take(&mut self, version: RowVersionBefore) -> ControlFlow<()> {
        let is_new = self.before.as_ref() != Some(&version.value);
        self.before = Some(version.value.clone());
        if !is_new || version.from <= self.after {
            return ControlFlow::Continue(());
        }
        let is_over = self.filling.is_full() || self.found.len() >= self.limit;
        self.filling
            .take(version.value.as_ref().map_or(0, Bytes::len));
        self.found.push(version);
        match is_over {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

impl<V: View> ChangedBetween<V> {
    /// After where a page ended.
    pub fn after(mut self, key: Option<V::Key>) -> ChangedBetween<V> {
        self.after = key;
        self
    }

    /// Looking at so many keys that were touched, at most (at least one).
    pub fn limit(mut self, keys: usize) -> ChangedBetween<V> {
        self.limit = keys.max(1);
        self
    }

    async fn read(self) -> Result<Changed<V>, ViewError> {
        let views = &self.views;
        let (live, from) = views
            .at_moment(views.live().await?, self.from, ViewHandle::<V>::WAIT)
            .await?;
        let (generation, to) = views
            .at_moment(live, self.to, ViewHandle::<V>::WAIT)
            .await?;
        if from > to {
            return Err(Invalid::new(format!("a change from position {from} back to {to}")).into());
        }
        // Runs that reach over the second moment end here at the latest.
        let range = (from, interval_end(to));
        let output = views.output.as_ref();
        let after = match &self.after {
            Some(key) => Some(views.stored_key(&key.to_key())),
            None => output.map(|output| output.prefix.clone()),
        };
        let mut keys = views
            .context
            .views
            .keys_changed_between(generation.id, range, after.as_deref(), self.limit)
            .await?;
        let is_full = keys.len() == self.limit;
        let mut next = keys
            .last()
            .filter(|key| is_full && views.is_mine(key))
            .map(|key| views.typed_key(key))
            .transpose()?;
        keys.retain(|key| views.is_mine(key));
        let mut changes = Vec::new();
        let mut filling = Filling::default();
        let mut read = 0;
        while read < keys.len() && !filling.is_full() {
            let some = filling.rows_next().min(keys.len() - read);
            let some = &keys[read..read + some];
            let before = views.past_rows(&generation, some, from).await?;
            let after = views.past_rows(&generation, some, to).await?;
            for ((key, (before, old)), (after, new)) in some.iter().zip(before).zip(after) {
                if filling.is_full() {
                    break;
                }
                read += 1;
                let bytes =
                    |value: &Option<V>| value.as_ref().map(|value| encode(key, value)).transpose();
                let differs = bytes(&before)? != bytes(&after)?;
                // Rows that are the same at both moments are read, too.
                filling.take(old + new);
                if differs {
                    changes.push(RowDiff {
                        key: views.typed_key(key)?,
                        before,
                        after,
                    });
                }
            }
        }
        if read < keys.len() {
            next = keys[..read]
                .last()
                .map(|key| views.typed_key(key))
                .transpose()?;
        }
        Ok(Changed {
            changes,
            next,
            between: (from, to),
        })
    }
}

/// How many of these versions are a page of at most `limit`.
fn page_of(versions: &[RowVersionBefore], limit: usize) -> usize {
    let mut filling = Filling::default();
    let fits = versions.iter().take(limit).take_while(|version| {
        let is_full = filling.is_full();
        filling.take(version.value.as_ref().map_or(0, Bytes::len));
        !is_full
    });
    fits.count()
}

/// The generation, if it keeps the past.
pub(super) fn keeping_the_past<V: View>(generation: Generation) -> Result<Generation, ViewError> {
    if generation.spec.history == History::None {
        let what = format!(
            "view `{}` keeps no past; declare it with `history`",
            V::NAME
        );
        return Err(Invalid::new(what).into());
    }
    Ok(generation)
}

impl<V: View> IntoFuture for HistoryOf<V> {
    type Output = Result<RowHistory<V>, ViewError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<V: View> IntoFuture for ChangedBetween<V> {
    type Output = Result<Changed<V>, ViewError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<V: View> fmt::Debug for HistoryOf<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryOf")
            .field("view", &V::NAME)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl<V: View> fmt::Debug for ChangedBetween<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ChangedBetween");
        debug
            .field("view", &V::NAME)
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}
