//! The rows of a view as a table: its own fold, run inside a pipeline.

use std::sync::Arc;

use annals_core::RecordedEvent;
use annals_runner::chain;
use annals_streams::{
    Batch, Change, Each, Kept, Page, PlannedStage, Row as Item, Scan, Span, Time,
};

use super::divide::{StreamOf, divide};
use super::graph::{At, Making, Node, Port};
use super::keyed::PipelineKey;
use super::source::{OpenSource, Read, Source, micros};
use super::stream::{Flows, Log};
use super::table::Table;
use crate::key::ViewKey;
use crate::view::step::Step;
use crate::view::{Handlers, Row, View};

/// What an event does to the row of a key.
struct Folding<V: View> {
    key: String,
    step: Arc<Step<V>>,
}

impl<V: View> Clone for Folding<V> {
    fn clone(&self) -> Folding<V> {
        Folding {
            key: self.key.clone(),
            step: Arc::clone(&self.step),
        }
    }
}

/// A row before and after an event, or why the event cannot be folded.
type Folded<V> = Result<(Option<V>, Option<V>), String>;

impl Log {
    /// The rows of a view, folded here from the same events in the order of the log: a table in
    /// which each row holds from the time of the event that changed it. Whether the program keeps
    /// the view as well does not matter. Captured tables have `table_of` of their own.
    ///
    /// An event that the fold refuses becomes a dead letter, and the row stays as it was; one whose
    /// keys are not known stops the pipeline, as it stops the view.
    ///
    /// ```
    /// # use annals_projections::View;
    /// # use annals_projections::pipeline::{Keyed, Log};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// # struct Paid { cents: i64 }
    /// # trait Account: View<Key = String> + Clone { fn limit(&self) -> i64; }
    /// # fn example<Accounts: Account>(log: &Log, paid: Keyed<String, Paid>) {
    /// let accounts = log.table::<Accounts>();
    /// paid.look_up(&accounts, |paid, account| {
    ///     account.is_some_and(|account| paid.cents > account.limit())
    /// });
    /// # }
    /// ```
    pub fn table<V: View + Flows + Kept>(&self) -> Table<V::Key, V>
    where
        V::Key: PipelineKey,
    {
        let handlers = V::handlers();
        if handlers.names().next().is_none() {
            self.graph.wrong(format!(
                "view `{}` is folded from no events, so it is no table of the log",
                V::NAME
            ));
        }
        let stage = self.graph.stage(PlannedStage::new("table_of", V::NAME));
        self.graph.keyed_by::<V::Key>();
        let events = Node::new();
        let source = Arc::new(ViewSource {
            handlers: Arc::new(handlers),
            node: events.clone(),
        });
        let source = self.graph.source(source);
        let at = At {
            graph: self.graph.clone(),
            stage,
            divided: false,
            sources: Arc::new([source]),
            lag: Span::ZERO,
        };
        let key = |(key, _): &(String, Folding<V>)| key.clone();
        let events = divide(&at, (&events, key), Clone::clone, key, StreamOf::own_text());
        let at = At {
            divided: true,
            ..at
        };
        let at = at.then(PlannedStage::new("fold", V::NAME).with("version", V::VERSION.into()));
        let node: Node<Change<V::Key, V>> = Node::new();
        let to = node.clone();
        let of = at.numbered();
        events.attach(move |making| {
            let failed = making.on_error(of, |(key, _): &(String, Folded<V>)| key.clone());
            let change = move |row: &Item<(String, Folded<V>)>| {
                let (text, folded) = &row.item;
                match (V::Key::from_key(text), folded) {
                    (Some(key), Ok((old, new))) => {
                        let old = old.clone();
                        let new = new.clone();
                        Some((row.time, Change { key, new, old }))
                    }
                    (None, Ok(_)) => {
                        failed(row, format!("`{text}` is no key of view `{}`", V::NAME));
                        None
                    }
                    (_, Err(reason)) => {
                        failed(row, reason.clone());
                        None
                    }
                }
            };
            let then = Box::new(Each::retimed(change, to.port(making)));
            let fold = Scan::<String, Folding<V>, Option<V>, Folded<V>>::new(Span::MAX, fold);
            let by_key: fn(&(String, Folding<V>)) -> String = |(key, _)| key.clone();
            making.stage(of, fold, then, (by_key, |(key, _)| key.clone()))
        });
        Table::changed(at, node)
    }
}

fn fold<V: View + Clone>(kept: &mut Option<V>, of: &Folding<V>) -> Option<Folded<V>> {
    let old = kept.clone();
    let mut value = old.clone().unwrap_or_default();
    let mut row = Row::new(&of.key, &mut value, old.is_some());
    if let Err(poison) = of.step.apply(&mut row) {
        return Some(Err(poison.reason().to_owned()));
    }
    let is_removed = row.was_removed();
    *kept = (!is_removed).then_some(value);
    (old.is_some() || kept.is_some()).then(|| Ok((old, kept.clone())))
}

struct ViewSource<V: View> {
    handlers: Arc<Handlers<V>>,
    node: Node<(String, Folding<V>)>,
}

impl<V: View> Source for ViewSource<V> {
    fn types(&self) -> Vec<&'static str> {
        self.handlers.names().collect()
    }

    fn parameters(&self) -> Vec<(&'static str, i64)> {
        Vec::new()
    }

    fn clock(&self) -> (Span, bool) {
        (Span::ZERO, false)
    }

    fn open(&self, making: &mut Making) -> Box<dyn OpenSource> {
        Box::new(Opened {
            handlers: Arc::clone(&self.handlers),
            rows: Vec::new(),
            then: self.node.port(making),
        })
    }
}

struct Opened<V: View> {
    handlers: Arc<Handlers<V>>,
    rows: Vec<Item<(String, Folding<V>)>>,
    then: Port<(String, Folding<V>)>,
}

impl<V: View> OpenSource for Opened<V> {
    fn read(&mut self, cause: usize, record: RecordedEvent) -> Read {
        let time = micros(record.occurred_at);
        let when = 2 * cause as u32 + 1;
        let steps = match self.handlers.prepare(record) {
            Ok(steps) if steps.is_empty() => return Read::Nothing,
            Ok(steps) => steps,
            Err(error) => {
                return Read::Unreadable {
                    reason: chain(&error),
                    goes_on: false,
                };
            }
        };
        for step in steps {
            let step = Arc::new(step);
            for key in &step.keys {
                let step = Arc::clone(&step);
                let key = key.clone();
                let item = (key.clone(), Folding { key, step });
                self.rows.push(Item { when, time, item });
            }
        }
        Read::At(time)
    }

    fn time_unread(&self, occurred: Time, _: Time) -> Option<Time> {
        Some(occurred)
    }

    fn send(&mut self, page: &Page) {
        Batch::send(page, &mut self.rows, &mut *self.then);
    }
}
