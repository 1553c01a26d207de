//! What goes along with the appends of a program.

use std::fmt;

use async_trait::async_trait;

use crate::append::Append;
use crate::inline::InlineRow;

/// Prepares rows that are written with an append. Asked for every append of a
/// [decision](crate::Annals), before it is made; when the decision is taken again it is asked
/// again.
///
/// It never keeps an append from being made: what it cannot prepare it skips, and a worker writes
/// it later.
///
/// ```
/// use annals_core::{Append, InlineProjector, InlineRow};
///
/// #[derive(Debug)]
/// struct Nothing;
///
/// #[async_trait::async_trait]
/// impl InlineProjector for Nothing {
///     async fn prepare(&self, _: &Append) -> Vec<InlineRow> {
///         Vec::new()
///     }
/// }
/// ```
#[async_trait]
pub trait InlineProjector: fmt::Debug + Send + Sync + 'static {
    /// The rows that are written with this append.
    async fn prepare(&self, append: &Append) -> Vec<InlineRow>;
}
