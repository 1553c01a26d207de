//! Folds: what a window, a group or a table keeps of the items that went into it.

use crate::Kept;
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, collections::BTreeSet};

/// An accumulator that takes items one by one and can be put together from parts.
///
/// A fold is a function of its items: no clock, no random number, no environment, and no sums of
/// floating point numbers, which depend on the order of addition.
///
/// ```
/// use annals_streams::Fold;
/// use serde::{Deserialize, Serialize};
///
/// struct Sale { cents: i64 }
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Sales { orders: u64, cents: i64 }
///
/// impl Fold<Sale> for Sales {
///     fn add(&mut self, sale: &Sale) {
///         self.orders += 1;
///         self.cents += sale.cents;
///     }
///
///     fn merge(&mut self, other: Self) {
///         self.orders += other.orders;
///         self.cents += other.cents;
///     }
/// }
///
/// let mut sales = Sales::default();
/// sales.add(&Sale { cents: 250 });
/// assert_eq!((sales.orders, sales.cents), (1, 250));
/// ```
pub trait Fold<T>: Kept + Default {
    /// Whether items may be added, and parts merged, in any order with the same outcome. Say
    /// `false` if not: items are then folded in the order in which they came, at some cost.
    const COMMUTES: bool = true;

    /// Takes one item in.
    fn add(&mut self, item: &T);

    /// Takes in what another accumulator of the same window has.
    fn merge(&mut self, other: Self);
}

/// A fold that can also give an item back: what tables that change are grouped with.
///
/// ```
/// use annals_streams::{Count, Fold, TakeBack};
///
/// let mut count = Count::default();
/// count.add(&"a");
/// count.take_back(&"a");
/// assert_eq!(count, Count::default());
/// ```
pub trait TakeBack<T>: Fold<T> {
    /// Undoes one earlier `add` of an equal item.
    fn take_back(&mut self, item: &T);
}

/// How many items there were.
///
/// ```
/// use annals_streams::{Count, Fold};
///
/// let mut count = Count::default();
/// count.add(&'x');
/// assert_eq!(count.0, 1);
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Count(pub u64);

impl<T> Fold<T> for Count {
    fn add(&mut self, _: &T) {
        self.0 += 1;
    }

    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl<T> TakeBack<T> for Count {
    fn take_back(&mut self, _: &T) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// The exact sum of integers.
///
/// ```
/// use annals_streams::{Fold, Sum};
///
/// let mut sum = Sum::default();
/// sum.add(&i64::MAX);
/// sum.add(&1);
/// assert_eq!(sum.0, i128::from(i64::MAX) + 1);
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sum(pub i128);

impl<T: Copy + Into<i128>> Fold<T> for Sum {
    fn add(&mut self, item: &T) {
        // Wrapping keeps the order irrelevant even where saturating would not.
        self.0 = self.0.wrapping_add((*item).into());
    }

    fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl<T: Copy + Into<i128>> TakeBack<T> for Sum {
    fn take_back(&mut self, item: &T) {
        self.0 = self.0.wrapping_sub((*item).into());
    }
}

/// Sum and number, from which the mean follows exactly.
///
/// ```
/// use annals_streams::{Fold, Mean};
///
/// let mut mean = Mean::default();
/// mean.add(&4_i64);
/// mean.add(&7_i64);
/// assert_eq!(mean.rounded_down(), Some(5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mean {
    /// The sum of the items.
    pub sum: i128,
    /// How many there were.
    pub count: u64,
}

impl Mean {
    /// The mean, rounded towards minus infinity; none of no items.
    ///
    /// ```
    /// # use annals_streams::Mean;
    /// assert_eq!(Mean { sum: -7, count: 2 }.rounded_down(), Some(-4));
    /// ```
    pub fn rounded_down(&self) -> Option<i128> {
        self.sum.checked_div_euclid(i128::from(self.count))
    }
}

impl<T: Copy + Into<i128>> Fold<T> for Mean {
    fn add(&mut self, item: &T) {
        self.sum = self.sum.wrapping_add((*item).into());
        self.count += 1;
    }

    fn merge(&mut self, other: Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.count += other.count;
    }
}

impl<T: Copy + Into<i128>> TakeBack<T> for Mean {
    fn take_back(&mut self, item: &T) {
        self.sum = self.sum.wrapping_sub((*item).into());
        self.count = self.count.saturating_sub(1);
    }
}

/// The least item, by its order.
///
/// ```
/// use annals_streams::{Fold, Min};
///
/// let mut least = Min::default();
/// least.add(&3);
/// least.add(&2);
/// assert_eq!(least.0, Some(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Min<T>(pub Option<T>);

impl<T> Default for Min<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Kept + Ord> Fold<T> for Min<T> {
    fn add(&mut self, item: &T) {
        if self.0.as_ref().is_none_or(|least| item < least) {
            self.0 = Some(item.clone());
        }
    }

    fn merge(&mut self, other: Self) {
        if let Some(item) = other.0 {
            self.add(&item);
        }
    }
}

/// The largest item, by its order.
///
/// ```
/// use annals_streams::{Fold, Max};
///
/// let mut largest = Max::default();
/// largest.add(&3);
/// assert_eq!(largest.0, Some(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Max<T>(pub Option<T>);

impl<T> Default for Max<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Kept + Ord> Fold<T> for Max<T> {
    fn add(&mut self, item: &T) {
        if self.0.as_ref().is_none_or(|largest| item > largest) {
            self.0 = Some(item.clone());
        }
    }

    fn merge(&mut self, other: Self) {
        if let Some(item) = other.0 {
            self.add(&item);
        }
    }
}

/// The different items, in their order.
///
/// ```
/// use annals_streams::{Distinct, Fold};
///
/// let mut countries = Distinct::default();
/// countries.add(&"DE".to_string());
/// countries.add(&"DE".to_string());
/// assert_eq!(countries.0.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[serde(bound(deserialize = "T: Ord + Deserialize<'de>"))]
pub struct Distinct<T>(pub BTreeSet<T>);

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Ord> Fold<T> for Distinct<T>
where
    T: Clone + Serialize + serde::de::DeserializeOwned,
{
    fn add(&mut self, item: &T) {
        if !self.0.contains(item) {
            self.0.insert(item.clone());
        }
    }

    fn merge(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

/// The `N` largest items, largest first; equal ones count each.
///
/// For the best of each window when scores can also fall, see
/// [`TopOfWindow`](crate::TopOfWindow).
///
/// ```
/// use annals_streams::{Fold, Largest};
///
/// let mut prices = Largest::<2, u64>::default();
/// for price in [3, 9, 5] {
///     prices.add(&price);
/// }
/// assert_eq!(prices.items(), [9, 5]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Largest<const N: usize, T>(Vec<T>);

impl<const N: usize, T> Largest<N, T> {
    /// What is kept, largest first.
    ///
    /// ```
    /// # use annals_streams::Largest;
    /// assert!(Largest::<3, u8>::default().items().is_empty());
    /// ```
    pub fn items(&self) -> &[T] {
        &self.0
    }
}

impl<const N: usize, T> Default for Largest<N, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<const N: usize, T: Kept + Ord> Fold<T> for Largest<N, T> {
    fn add(&mut self, item: &T) {
        let place = self
            .0
            .partition_point(|kept| Reverse(kept) <= Reverse(item));
        if place < N {
            self.0.insert(place, item.clone());
            self.0.truncate(N);
        }
    }

    fn merge(&mut self, other: Self) {
        for item in &other.0 {
            self.add(item);
        }
    }
}

/// All items in the order in which they came.
///
/// ```
/// use annals_streams::{Collect, Fold};
///
/// let mut all = Collect::default();
/// all.add(&2);
/// all.add(&1);
/// assert_eq!(all.0, [2, 1]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Collect<T>(pub Vec<T>);

impl<T> Default for Collect<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Kept> Fold<T> for Collect<T> {
    const COMMUTES: bool = false;

    fn add(&mut self, item: &T) {
        self.0.push(item.clone());
    }

    fn merge(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl<T, A: Fold<T>, B: Fold<T>> Fold<T> for (A, B) {
    const COMMUTES: bool = A::COMMUTES && B::COMMUTES;

    fn add(&mut self, item: &T) {
        self.0.add(item);
        self.1.add(item);
    }

    fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
        self.1.merge(other.1);
    }
}

impl<T, A: TakeBack<T>, B: TakeBack<T>> TakeBack<T> for (A, B) {
    fn take_back(&mut self, item: &T) {
        self.0.take_back(item);
        self.1.take_back(item);
    }
}
