//! A view as what is built in generations: worked on, checked, switched to, dropped.

use std::fmt;
use std::sync::Arc;

use annals_core::{CommitError, Generation, GenerationId};
use annals_runner::{BoxFuture, Pages, Slot, Subject, Verified, WorkError, run};
use tokio::sync::watch;

use crate::context::ViewContext;
use crate::verify;
use crate::view::{Handlers, View};
use crate::worker::{FoldView, ViewPage};

/// A view, as its supervisor and its rebuilds know it.
pub(crate) struct ViewSubject<V: View> {
    context: ViewContext,
    handlers: Arc<Handlers<V>>,
    pages: Arc<Pages<ViewPage>>,
}

impl<V: View> ViewSubject<V> {
    pub(crate) fn of(context: &ViewContext) -> Arc<ViewSubject<V>> {
        Arc::new(ViewSubject {
            context: context.clone(),
            handlers: Arc::new(V::handlers()),
            pages: Arc::default(),
        })
    }
}

impl<V: View> Subject for ViewSubject<V> {
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()> {
        let handlers = Arc::clone(&self.handlers);
        let pages = Arc::clone(&self.pages);
        let options = self.context.options.clone();
        Box::pin(run(FoldView::new(slot, handlers, pages, options), stop))
    }

    fn verify<'a>(
        &'a self,
        generation: &'a Generation,
    ) -> BoxFuture<'a, Result<Verified, WorkError>> {
        Box::pin(verify::sampled::<V>(&self.context, generation))
    }

    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.switch_to(generation)
    }

    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>> {
        self.context.views.drop_generation(generation)
    }
}

impl<V: View> fmt::Debug for ViewSubject<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewSubject")
            .field("view", &V::NAME)
            .finish_non_exhaustive()
    }
}
