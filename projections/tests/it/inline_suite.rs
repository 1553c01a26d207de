//! What holds of inline views: on every backend that keeps inline views. It is
//! beside `suite`.

#![allow(missing_docs, clippy::unwrap_used)]

use crate::suite::{bank, test_store};

mod inline;
mod lifecycles;
