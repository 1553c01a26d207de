//! What leaves a pipeline: rows of views, each at the exact record that caused it.

use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{History, NewEvent, Outgoing, StreamId, VIEW_KEY_BYTES_MAX};
use annals_runner::GenerationWorkers;
use annals_streams::{Batch, Sink, Time};
use bytes::Bytes;

use super::graph::{At, Making, Numbered, Port};
use super::panics::NameOf;
use crate::context::ViewContext;
use crate::fold::{RowError, encode, read_back};
use crate::key::checked;
use crate::query::{OWN_ENTRY, OutputRows, ViewHandle};
use crate::view::{View, output_make_of};

/// Ends the name of an output in a stored key.
pub(crate) const END: char = '\u{1e}';

type MakeHandle =
    fn(&ViewContext, &GenerationWorkers, OutputRows) -> (TypeId, Box<dyn Any + Send + Sync>);

/// A view that a pipeline writes.
#[derive(Clone)]
pub(crate) struct OutputSpec {
    pub(crate) name: &'static str,
    pub(crate) keeps: bool,
    pub(crate) indexes: &'static [&'static str],
    /// What its rows are made of.
    pub(crate) make: String,
    pub(crate) handle: MakeHandle,
}

impl OutputSpec {
    pub(crate) fn prefix(&self) -> String {
        format!("{}{END}", self.name)
    }

    /// The names of its indexes among those of all outputs.
    pub(crate) fn index_names(&self) -> impl Iterator<Item = String> {
        let prefix = self.prefix();
        self.indexes
            .iter()
            .map(move |name| format!("{prefix}{name}"))
    }
}

/// A row that leaves a slot, with the record of its page that is the cause.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub(crate) cause: usize,
    pub(crate) keeps: bool,
    pub(crate) key: String,
    pub(crate) value: Option<Bytes>,
    pub(crate) indexed: Vec<String>,
}

/// An event that leaves a slot.
#[derive(Debug)]
pub(crate) struct EmittedEvent {
    /// As in [`Row::when`](annals_streams::Row::when).
    pub(crate) when: u32,
    /// The stage that emits it.
    pub(crate) output: u16,
    pub(crate) time: Time,
    /// The key, as rows have it.
    pub(crate) key: String,
    /// What it is, or why no store ever takes it.
    pub(crate) what: Result<Leaving, String>,
}

/// What leaves a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Leaving {
    /// An event for a stream of the log; it has its id only when it is sent.
    Append(StreamId, NewEvent),
    /// A record for an outlet of the pipeline, by its number.
    Publish(u16, Outgoing),
}

/// What the outputs of a slot were given for a page.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) rows: Vec<Emitted>,
    /// Events that are to be appended.
    pub(crate) events: Vec<EmittedEvent>,
    /// Windows that late items missed, one for each item and window, and late items of other
    /// stages, since the slot began.
    pub(crate) missed: u64,
}

/// Adds a view to a pipeline.
pub(crate) fn declare<V: View>(at: &At) {
    let mut draft = at.graph.lock();
    if V::HISTORY == History::Bitemporal {
        draft.wrong.push(format!(
            "view `{}` keeps its past by event time, which a view of a pipeline cannot; say \
             `history`",
            V::NAME
        ));
    }
    if draft.outputs.iter().any(|output| output.name == V::NAME) {
        draft.wrong.push(format!(
            "view `{}` is written twice; merge the streams, or write two views",
            V::NAME
        ));
        return;
    }
    draft.outputs.push(OutputSpec {
        name: V::NAME,
        keeps: V::HISTORY != History::None,
        indexes: V::INDEXES,
        make: output_make_of::<V>(),
        handle: |context, workers, output| {
            let handle = ViewHandle::<V>::new(context.clone(), workers.clone());
            let handle = handle.of_pipeline(Arc::new(output));
            (TypeId::of::<V>(), Box::new(handle))
        },
    });
}

/// The end of a stream in a view: for each item a key with its row, or without one where it is
/// removed; nothing where the item is not for the view. An item whose row panics, or cannot be
/// written, has none.
pub(crate) fn into_view<T: Send + 'static, V: View>(
    making: &Making,
    (of, name): (Numbered, NameOf<T>),
    row: impl Fn(&T) -> Option<(V::Key, Option<V>)> + Send + 'static,
) -> Port<T> {
    let collected = Arc::clone(&making.collected);
    let on_panic = making.on_panic(of, name);
    let on_error = making.on_error(of, name);
    let prefix = format!("{}{END}", V::NAME);
    let keeps = V::HISTORY != History::None;
    Box::new(Sink::new(move |batch: &Batch<T>| {
        let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
        for of in &batch.rows {
            let made = catch_unwind(AssertUnwindSafe(|| {
                row(&of.item).map(|(key, value)| written(&prefix, &key, value.as_ref()))
            }));
            let made = match made {
                Ok(Some(made)) => made,
                Ok(None) => continue,
                Err(panic) => {
                    on_panic(of, panic);
                    continue;
                }
            };
            match made {
                Ok((key, value, indexed)) => collected.rows.push(Emitted {
                    cause: of.cause(),
                    keeps,
                    key,
                    value,
                    indexed,
                }),
                Err(reason) => on_error(of, format!("a row of view `{}` {reason}", V::NAME)),
            }
        }
    }))
}

fn written<V: View>(
    prefix: &str,
    key: &V::Key,
    value: Option<&V>,
) -> Result<(String, Option<Bytes>, Vec<String>), String> {
    let text = checked(key).map_err(|refused| format!("has no key: {refused}"))?;
    let indexed = value.map(View::indexed).unwrap_or_default();
    // A character comes before each.
    let most = VIEW_KEY_BYTES_MAX - OWN_ENTRY.len_utf8();
    if let Some(long) = indexed.iter().position(|entry| entry.len() > most) {
        let name = V::INDEXES.get(long).copied().unwrap_or_default();
        let bytes = indexed[long].len();
        return Err(format!(
            "cannot be indexed: its entry in index `{name}` has {bytes} bytes, at most {most} are \
             possible"
        ));
    }
    let value = value.map(stored).transpose()?;
    Ok((format!("{prefix}{text}"), value, indexed))
}

/// A row as it is stored, read back as it was written.
fn stored<V: View>(value: &V) -> Result<Bytes, String> {
    let stored = encode("", value).map_err(RowError::into_what)?;
    read_back::<V>("", Some(&stored)).map_err(RowError::into_what)?;
    Ok(stored)
}

/// The rows and events of a page, taken out.
pub(crate) fn take(collected: &Mutex<Collected>) -> (Vec<Emitted>, Vec<EmittedEvent>) {
    let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = std::mem::take(&mut collected.rows);
    (rows, std::mem::take(&mut collected.events))
}
