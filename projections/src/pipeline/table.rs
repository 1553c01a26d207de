//! Tables: for each key the row that holds now, and how it came to be.

use std::fmt;
use std::sync::{Arc, OnceLock};

use annals_streams::{
    Change, Each, ForeignKeyJoin, GroupBy, JoinType, Kept, Newer, Operator, PlannedStage, Side,
    State, TableJoin, TakeBack,
};

use super::graph::{At, Node};
use super::join::{Sides, sides};
use super::keyed::{Keyed, PipelineKey, mapped};
use super::output::{declare, into_view};
use super::panics::{by_change, by_key, by_side};
use super::stream::Flows;
use crate::view::View;

/// Rows by key that change in event time, inside a pipeline.
///
/// A handle: using it twice branches the table. A table has a row of state for each key for as long
/// as the pipeline lives; a deleted row that was set by time leaves a small mark.
pub struct Table<K, V> {
    pub(super) at: At,
    rows: Rows<K, V>,
}

/// A key and the row that it has now, if it has one.
type Current<K, V> = (K, Option<V>);
/// The rows of two tables, as a join of them takes them.
type JoinedSides<K, V, J, W> = Side<Current<K, V>, Current<J, W>>;

type Shared<K, V> = Arc<OnceLock<(At, Node<Change<K, V>>)>>;

/// How changes come.
enum Rows<K, V> {
    /// Each row as it is set, from its own time on; of two the one with the larger time counts.
    Set {
        node: Node<(K, Option<V>)>,
        /// The same as changes, made at the first use.
        changes: Shared<K, V>,
    },
    /// In the order in which they hold.
    Changed(Node<Change<K, V>>),
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Table<K, V> {
        let rows = match &self.rows {
            Rows::Set { node, changes } => Rows::Set {
                node: node.clone(),
                changes: Arc::clone(changes),
            },
            Rows::Changed(node) => Rows::Changed(node.clone()),
        };
        Table {
            at: self.at.clone(),
            rows,
        }
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("stage", &self.at.stage)
            .finish_non_exhaustive()
    }
}

impl<K: PipelineKey, T: Flows> Keyed<K, T> {
    /// Each item as the row of its key from its time on; nothing: the row is deleted. Of two items
    /// of one key the one with the larger event time counts, whichever comes first.
    ///
    /// ```
    /// # use annals_projections::pipeline::Keyed;
    /// # #[derive(Clone)]
    /// # enum Listing { Listed { cents: i64 }, Gone }
    /// # fn example(listings: Keyed<String, Listing>) {
    /// listings.table(|listing| match listing {
    ///     Listing::Listed { cents } => Some(*cents),
    ///     Listing::Gone => None,
    /// });
    /// # }
    /// ```
    pub fn table<V: Flows + Kept>(
        &self,
        row: impl Fn(&T) -> Option<V> + Send + Sync + 'static,
    ) -> Table<K, V> {
        let node = Node::new();
        let at = self.at.then(PlannedStage::new("table", ""));
        let stage = (at.numbered(), by_key as _);
        mapped(&self.node, &node, stage, move |(key, item): &(K, T)| {
            Some((key.clone(), row(item)))
        });
        Table {
            at,
            rows: Rows::Set {
                node,
                changes: Arc::default(),
            },
        }
    }
}

impl<K: PipelineKey, V: Flows + Kept> Table<K, V> {
    pub(super) fn changed(at: At, node: Node<Change<K, V>>) -> Table<K, V> {
        Table {
            at,
            rows: Rows::Changed(node),
        }
    }

    /// Rows as they are set, and which of two is the newer one.
    pub(super) fn rows(&self) -> (Node<(K, Option<V>)>, Newer) {
        match &self.rows {
            Rows::Set { node, .. } => (node.clone(), Newer::ByTime),
            Rows::Changed(changes) => (rows_of(&self.at, changes), Newer::ByArrival),
        }
    }

    /// Rows in the order in which they hold.
    pub(super) fn rows_in_order(&self) -> (At, Node<(K, Option<V>)>) {
        let (at, changes) = self.all_changes();
        let rows = rows_of(&at, &changes);
        (at, rows)
    }

    fn all_changes(&self) -> (At, Node<Change<K, V>>) {
        match &self.rows {
            Rows::Changed(changes) => (self.at.clone(), changes.clone()),
            Rows::Set { node, changes } => {
                let made = changes.get_or_init(|| {
                    let at = self.at.then(PlannedStage::new("changes", ""));
                    let changes = Node::new();
                    let to: Node<Change<K, V>> = changes.clone();
                    let stage = at.numbered();
                    node.attach(move |making| {
                        // The rows of a join with a table that is always empty.
                        let row = |row: Option<&V>, _: Option<&()>| row.cloned();
                        let rows = TableJoin::new(JoinType::Left, Newer::ByTime, row);
                        let then = Box::new(Each::map(flattened, to.port(making)));
                        let rows = making.stage(stage, rows, then, (by_side, by_change));
                        let left = |row: &(K, Option<V>)| Side::Left(row.clone());
                        Box::new(Each::map(left, rows))
                    });
                    (at, changes)
                });
                made.clone()
            }
        }
    }

    /// Something made of each row.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # fn example(prices: Table<String, i64>) {
    /// prices.map(|_, cents| cents / 100);
    /// # }
    /// ```
    pub fn map<U: Flows + Kept>(
        &self,
        map: impl Fn(&K, &V) -> U + Send + Sync + 'static,
    ) -> Table<K, U> {
        self.each("map", move |key, row| Some(map(key, row)))
    }

    /// Only the rows for which this holds; one for which it holds no longer is deleted.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # fn example(prices: Table<String, i64>) {
    /// prices.filter(|cents| *cents > 0);
    /// # }
    /// ```
    pub fn filter(&self, keep: impl Fn(&V) -> bool + Send + Sync + 'static) -> Table<K, V> {
        self.each("filter", move |_, row| keep(row).then(|| row.clone()))
    }

    fn each<U: Flows + Kept>(
        &self,
        kind: &'static str,
        each: impl Fn(&K, &V) -> Option<U> + Send + Sync + 'static,
    ) -> Table<K, U> {
        let at = self.at.then(PlannedStage::new(kind, ""));
        let rows = match &self.rows {
            Rows::Set { node: from, .. } => {
                let node = Node::new();
                let stage = (at.numbered(), by_key as _);
                mapped(from, &node, stage, move |(key, row): &(K, Option<V>)| {
                    let row = row.as_ref().and_then(|row| each(key, row));
                    Some((key.clone(), row))
                });
                Rows::Set {
                    node,
                    changes: Arc::default(),
                }
            }
            Rows::Changed(from) => {
                let node = Node::new();
                let stage = (at.numbered(), by_change as _);
                mapped(from, &node, stage, move |change: &Change<K, V>| {
                    let of = |row: &Option<V>| row.as_ref().and_then(|row| each(&change.key, row));
                    let new = of(&change.new);
                    let old = of(&change.old);
                    (new.is_some() || old.is_some()).then(|| Change {
                        key: change.key.clone(),
                        new,
                        old,
                    })
                });
                Rows::Changed(node)
            }
        };
        Table { at, rows }
    }

    /// Rows of the keys that both tables have; a change of either side changes the row.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # fn example(prices: Table<String, i64>, stock: Table<String, i64>) {
    /// prices.join(&stock, |cents, pieces| cents * pieces);
    /// # }
    /// ```
    pub fn join<W: Flows + Kept, O: Flows + Kept>(
        &self,
        other: &Table<K, W>,
        row: impl Fn(&V, &W) -> O + Send + Sync + 'static,
    ) -> Table<K, O> {
        let row = move |left: Option<&V>, right: Option<&W>| Some(row(left?, right?));
        self.joined(other, ("join", JoinType::Inner), row)
    }

    /// Rows of the keys that this table has.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # fn example(prices: Table<String, i64>, stock: Table<String, i64>) {
    /// prices.left_join(&stock, |cents, pieces| cents * pieces.unwrap_or(&0));
    /// # }
    /// ```
    pub fn left_join<W: Flows + Kept, O: Flows + Kept>(
        &self,
        other: &Table<K, W>,
        row: impl Fn(&V, Option<&W>) -> O + Send + Sync + 'static,
    ) -> Table<K, O> {
        let row = move |left: Option<&V>, right: Option<&W>| Some(row(left?, right));
        self.joined(other, ("left_join", JoinType::Left), row)
    }

    /// Rows of the keys that either table has.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # fn example(here: Table<String, i64>, there: Table<String, i64>) {
    /// here.outer_join(&there, |here, there| here.unwrap_or(&0) - there.unwrap_or(&0));
    /// # }
    /// ```
    pub fn outer_join<W: Flows + Kept, O: Flows + Kept>(
        &self,
        other: &Table<K, W>,
        row: impl Fn(Option<&V>, Option<&W>) -> O + Send + Sync + 'static,
    ) -> Table<K, O> {
        let row = move |left: Option<&V>, right: Option<&W>| Some(row(left, right));
        self.joined(other, ("outer_join", JoinType::Outer), row)
    }

    fn joined<W: Flows + Kept, O: Flows + Kept>(
        &self,
        other: &Table<K, W>,
        (kind, join): (&'static str, JoinType),
        row: impl Fn(Option<&V>, Option<&W>) -> Option<O> + Send + Sync + 'static,
    ) -> Table<K, O> {
        let planned = PlannedStage::new(kind, "of tables");
        let at = self.at.then_both(&other.at, planned);
        let (left, newer) = self.rows();
        let (right, right_newer) = other.rows();
        joined_by(at, (&left, &right), row, move || {
            let join = TableJoin::<K, V, W, Sides<V, W>>::new(join, newer, sides);
            join.right_newer(right_newer)
        })
    }

    /// Rows of this table with the row of another one that they refer to; a row that refers to none
    /// or to one that is not there has no result. A change of either side changes the rows. Needs
    /// all keys in one slot.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, PartialEq)]
    /// # struct Order { customer: u64, cents: i64 }
    /// # fn example(orders: Table<u64, Order>, names: Table<u64, String>) {
    /// orders.join_on(&names, |order| Some(order.customer), |order, name| {
    ///     format!("{name}: {}", order.cents)
    /// });
    /// # }
    /// ```
    pub fn join_on<J: PipelineKey, W: Flows + Kept + PartialEq, O: Flows + Kept>(
        &self,
        other: &Table<J, W>,
        foreign_key: impl Fn(&V) -> Option<J> + Send + Sync + 'static,
        row: impl Fn(&V, &W) -> O + Send + Sync + 'static,
    ) -> Table<K, O>
    where
        V: PartialEq,
    {
        let row = move |left: Option<&V>, right: Option<&W>| Some(row(left?, right?));
        self.joined_on(other, ("join_on", JoinType::Inner), foreign_key, row)
    }

    /// As [`join_on`](Table::join_on), and a row that refers to none or to one that is not there is
    /// alone.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, PartialEq)]
    /// # struct Order { customer: Option<u64> }
    /// # fn example(orders: Table<u64, Order>, names: Table<u64, String>) {
    /// orders.left_join_on(&names, |order| order.customer, |_, name| name.cloned());
    /// # }
    /// ```
    pub fn left_join_on<J: PipelineKey, W: Flows + Kept + PartialEq, O: Flows + Kept>(
        &self,
        other: &Table<J, W>,
        foreign_key: impl Fn(&V) -> Option<J> + Send + Sync + 'static,
        row: impl Fn(&V, Option<&W>) -> O + Send + Sync + 'static,
    ) -> Table<K, O>
    where
        V: PartialEq,
    {
        let row = move |left: Option<&V>, right: Option<&W>| Some(row(left?, right));
        self.joined_on(other, ("left_join_on", JoinType::Left), foreign_key, row)
    }

    fn joined_on<J: PipelineKey, W: Flows + Kept + PartialEq, O: Flows + Kept>(
        &self,
        other: &Table<J, W>,
        (kind, join): (&'static str, JoinType),
        foreign_key: impl Fn(&V) -> Option<J> + Send + Sync + 'static,
        row: impl Fn(Option<&V>, Option<&W>) -> Option<O> + Send + Sync + 'static,
    ) -> Table<K, O>
    where
        V: PartialEq,
    {
        self.at.graph.needs_one_slot(kind);
        let at = self.at.then_both(&other.at, PlannedStage::new(kind, ""));
        let foreign_key = Arc::new(foreign_key);
        let (left, newer) = self.rows();
        let (right, right_newer) = other.rows();
        joined_by(at, (&left, &right), row, move || {
            let refers = Arc::clone(&foreign_key);
            let refers = move |row: &V| refers(row);
            let join = ForeignKeyJoin::<K, J, V, W, _>::new(join, newer, refers, sides);
            join.right_newer(right_newer)
        })
    }

    /// Its rows by groups, about to be folded. Needs all keys in one slot.
    ///
    /// ```
    /// # use annals_projections::pipeline::{Count, Table};
    /// # fn example(cities: Table<u64, String>) {
    /// cities.group_by(|_, city| city.clone()).folded::<Count>();
    /// # }
    /// ```
    pub fn group_by<G: PipelineKey>(
        &self,
        group: impl Fn(&K, &V) -> G + Send + Sync + 'static,
    ) -> Grouped<K, V, G> {
        self.at.graph.needs_one_slot("group_by");
        Grouped {
            from: self.clone(),
            group: Arc::new(group),
        }
    }

    /// How rows change, as items at the time of the change: what each is now, and what it was. A
    /// change that is older than the row is dropped.
    ///
    /// ```
    /// # use annals_projections::pipeline::Table;
    /// # fn example(prices: Table<String, i64>) {
    /// prices.changes().filter(|change| change.new > change.old);
    /// # }
    /// ```
    pub fn changes(&self) -> Keyed<K, Change<K, V>> {
        let (at, changes) = self.all_changes();
        let node = Node::new();
        let stage = (at.numbered(), by_change as _);
        mapped(&changes, &node, stage, |change: &Change<K, V>| {
            Some((change.key.clone(), change.clone()))
        });
        Keyed::of(at, node)
    }

    /// Writes each row as a row that this makes of it; a deleted one is removed.
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::Table;
    /// # fn example<Price: View<Key = String> + From<i64>>(prices: Table<String, i64>) {
    /// prices.into_view_as::<Price>(|_, cents| Price::from(*cents));
    /// # }
    /// ```
    pub fn into_view_as<R: View<Key = K>>(
        &self,
        row: impl Fn(&K, &V) -> R + Send + Sync + 'static,
    ) {
        let (at, changes) = self.all_changes();
        declare::<R>(&at);
        let stage = at.then(PlannedStage::new("into_view", R::NAME)).numbered();
        let row = Arc::new(row);
        changes.attach(move |making| {
            let row = Arc::clone(&row);
            into_view::<_, R>(
                making,
                (stage, by_change as _),
                move |change: &Change<K, V>| {
                    let value = change.new.as_ref().map(|new| row(&change.key, new));
                    Some((change.key.clone(), value))
                },
            )
        });
    }
}

impl<K: PipelineKey, V: View<Key = K> + Flows + Kept> Table<K, V> {
    /// Writes each row; a deleted one is removed.
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::Table;
    /// # fn example<Price: View<Key = String> + Clone>(prices: Table<String, Price>) {
    /// prices.into_view();
    /// # }
    /// ```
    pub fn into_view(&self) {
        self.into_view_as::<V>(|_, row| row.clone());
    }
}

type GroupOf<K, V, G> = Arc<dyn Fn(&K, &V) -> G + Send + Sync>;

/// The rows of a table by groups, about to be folded.
pub struct Grouped<K, V, G> {
    from: Table<K, V>,
    group: GroupOf<K, V, G>,
}

impl<K, V, G> fmt::Debug for Grouped<K, V, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouped").finish_non_exhaustive()
    }
}

impl<K: PipelineKey, V: Flows + Kept, G: PipelineKey> Grouped<K, V, G> {
    /// What each group holds: a row that changes is taken back with its old value and added with
    /// its new one. A group that became empty stays, with what its fold makes of that.
    ///
    /// ```
    /// # use annals_projections::pipeline::{Sum, Table};
    /// # fn example(balances: Table<String, i64>) {
    /// balances.group_by(|_, cents| *cents < 0).folded::<Sum>();
    /// # }
    /// ```
    pub fn folded<A: TakeBack<V> + Flows>(&self) -> Table<G, A> {
        let name = std::any::type_name::<A>();
        let name = name.rsplit("::").next().unwrap_or(name);
        let planned = PlannedStage::new("group_by", name);
        let at = self.from.at.then(planned);
        let node = Node::new();
        let to: Node<Change<G, A>> = node.clone();
        let stage = at.numbered();
        let (rows, newer) = self.from.rows();
        let group = Arc::clone(&self.group);
        rows.attach(move |making| {
            let group = Arc::clone(&group);
            let group = move |key: &K, row: &V| Some(group(key, row));
            let then = to.port(making);
            let groups = GroupBy::<K, G, V, A>::new(newer, group);
            making.stage(stage, groups, then, (by_key, by_change))
        });
        Table::changed(at, node)
    }
}

fn rows_of<K: PipelineKey, V: Flows>(
    at: &At,
    changes: &Node<Change<K, V>>,
) -> Node<(K, Option<V>)> {
    let node = Node::new();
    let stage = (at.numbered(), by_change as _);
    mapped(changes, &node, stage, |change: &Change<K, V>| {
        Some((change.key.clone(), change.new.clone()))
    });
    node
}

/// Where the rows of a table come from.
type RowsFrom<K, V> = Node<Current<K, V>>;

/// What an operator makes of the rows of two tables, as rows that are made of it.
fn joined_by<K, V, J, W, O, Op>(
    at: At,
    (left, right): (&RowsFrom<K, V>, &RowsFrom<J, W>),
    row: impl Fn(Option<&V>, Option<&W>) -> Option<O> + Send + Sync + 'static,
    join: impl Fn() -> Op + Send + Sync + 'static,
) -> Table<K, O>
where
    K: PipelineKey,
    V: Flows + Kept,
    J: PipelineKey,
    W: Flows + Kept,
    O: Flows + Kept,
    Op: Operator<In = JoinedSides<K, V, J, W>, Out = Change<K, Sides<V, W>>, Late = ()>,
    Op: State + Send + 'static,
{
    let node = Node::new();
    let to: Node<Change<K, O>> = node.clone();
    let row = Arc::new(row);
    let stage = at.numbered();
    at.attach_both((left, right), move |making| {
        let row = Arc::clone(&row);
        let made = move |of: &Change<K, Sides<V, W>>| made_by(&*row, of);
        // Rows are made after the join: one that cannot be made is skipped by itself.
        let then = Each::filter_map(made, to.port(making));
        let then = Box::new(then.on_panic(making.on_panic(stage, by_change)));
        making.stage(stage, join(), then, (by_side, by_change))
    });
    Table::changed(at, node)
}

/// A change of joined rows, of a change of what they are made of.
fn made_by<K: Clone, V, W, O>(
    row: &impl Fn(Option<&V>, Option<&W>) -> Option<O>,
    change: &Change<K, Sides<V, W>>,
) -> Option<Change<K, O>> {
    let row = |(left, right): &Sides<V, W>| row(left.as_ref(), right.as_ref());
    let new = change.new.as_ref().and_then(row);
    let old = change.old.as_ref().and_then(row);
    (new.is_some() || old.is_some()).then(|| Change {
        key: change.key.clone(),
        new,
        old,
    })
}

/// A change of what is there only if its row is.
fn flattened<K: Clone, O: Clone>(change: &Change<K, Option<O>>) -> Change<K, O> {
    Change {
        key: change.key.clone(),
        new: change.new.clone().flatten(),
        old: change.old.clone().flatten(),
    }
}
