//! Items of a stream with the row that a table has for their key.

use std::sync::Arc;

use annals_streams::{AsOfJoin, AsOfOptions, Each, JoinType, Kept, Newer, PlannedStage, Span};

use super::graph::{At, Node};
use super::join::{Sides, sides};
use super::keyed::{Keyed, PipelineKey};
use super::on_time::OnTime;
use super::panics::{by_key, by_side};
use super::stream::Flows;
use super::table::Table;

impl<K: PipelineKey, T: Flows + Kept> Keyed<K, T> {
    /// Each item with the row that the table had at the item's own time, if it had one.
    ///
    /// Items wait until the watermark has reached them, so that the answer does not depend on
    /// whether the item or the change of the table came first. A late item is dropped, counted in
    /// the status, and in [`late`](OnTime::late). A row that comes *after* an item in event time is
    /// none that it had: for that [`left_join`](Keyed::left_join) within bounds.
    ///
    /// Changes of a joined or grouped table hold in the order in which they come about.
    ///
    /// ```
    /// # use annals_projections::pipeline::{Keyed, Table};
    /// # fn example(sales: Keyed<String, i64>, costs: Table<String, i64>) {
    /// sales.look_up(&costs, |cents, cost| cents - cost.unwrap_or(&0));
    /// # }
    /// ```
    pub fn look_up<V: Flows + Kept, O: Flows>(
        &self,
        table: &Table<K, V>,
        row: impl Fn(&T, Option<&V>) -> O + Send + Sync + 'static,
    ) -> OnTime<K, O, T> {
        let (rows, newer) = table.rows();
        let options = match newer {
            Newer::ByTime => AsOfOptions::as_of(),
            Newer::ByArrival => AsOfOptions::as_of().in_order(),
        };
        self.looked_up("look_up", (&table.at, &rows), options, row)
    }

    /// Each item at once with the row that the table has when the item comes in the log; no item is
    /// late. Of a row and an item of the same record the item comes first.
    ///
    /// ```
    /// # use annals_projections::pipeline::{Keyed, Table};
    /// # fn example(sales: Keyed<String, i64>, costs: Table<String, i64>) {
    /// sales.look_up_latest(&costs, |cents, cost| cents - cost.unwrap_or(&0));
    /// # }
    /// ```
    pub fn look_up_latest<V: Flows + Kept, O: Flows>(
        &self,
        table: &Table<K, V>,
        row: impl Fn(&T, Option<&V>) -> O + Send + Sync + 'static,
    ) -> Keyed<K, O> {
        let (at, rows) = table.rows_in_order();
        self.looked_up("look_up_latest", (&at, &rows), AsOfOptions::newest(), row)
            .results()
    }

    fn looked_up<V: Flows + Kept, O: Flows>(
        &self,
        kind: &'static str,
        (of, rows): (&At, &Node<(K, Option<V>)>),
        options: AsOfOptions,
        row: impl Fn(&T, Option<&V>) -> O + Send + Sync + 'static,
    ) -> OnTime<K, O, T> {
        let at = self.at.then_both(of, PlannedStage::new(kind, ""));
        let row = Arc::new(row);
        let stage = at.numbered();
        OnTime::made(at.clone(), Span::ZERO, |to, late| {
            at.attach_both((&self.node, rows), move |making| {
                let row = Arc::clone(&row);
                let row = move |(key, (item, of)): &(K, Sides<T, V>)| {
                    let row = row(item.as_ref()?, of.as_ref());
                    Some((key.clone(), row))
                };
                let then = Each::filter_map(row, to.port(making));
                let then = Box::new(then.on_panic(making.on_panic(stage, by_key)));
                let join = AsOfJoin::<K, T, V, Sides<T, V>>::new(JoinType::Left, options, sides);
                making.stage_with_late(stage, join, (then, &late), (by_side, by_key))
            });
        })
    }
}
