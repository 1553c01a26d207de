//! What the workers and readers of a view work with.

use std::ops::Deref;

use annals_core::GenerationSpec;
use annals_runner::{GenerationWorkers, Kind, WorkerContext};

use crate::lifecycle::Lifecycle;
use crate::options::Options;
use crate::view::{View, make_of};

/// The program's context, and how this view is kept.
#[derive(Clone, Debug)]
pub(crate) struct ViewContext {
    pub(crate) program: WorkerContext,
    pub(crate) options: Options,
    pub(crate) lifecycle: Lifecycle,
}

impl ViewContext {
    pub(crate) fn new(
        mut program: WorkerContext,
        options: Options,
        lifecycle: Lifecycle,
    ) -> ViewContext {
        program.timing = options.timing();
        ViewContext {
            program,
            options,
            lifecycle,
        }
    }

    /// Follows no generation yet.
    pub(crate) fn workers<V: View>(&self) -> GenerationWorkers {
        GenerationWorkers::new(Kind::View, self.spec_of::<V>())
    }

    /// What a generation of this view must be made of for this program to fold it.
    pub(crate) fn spec_of<V: View>(&self) -> GenerationSpec {
        let log = self.log();
        let mut spec = GenerationSpec::new(V::NAME, V::VERSION, log.id());
        spec.handles = V::handlers().types();
        spec.handles.extend(make_of::<V>());
        spec.partitions = log.partitions();
        spec.slots = self.options.slots;
        spec.history = V::HISTORY;
        spec.inline = self.lifecycle == Lifecycle::Inline;
        spec.indexes = V::INDEXES.iter().map(|name| (*name).into()).collect();
        spec
    }
}

impl Deref for ViewContext {
    type Target = WorkerContext;

    fn deref(&self) -> &WorkerContext {
        &self.program
    }
}
