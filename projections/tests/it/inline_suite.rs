//! What holds where rows travel with appends: on every backend that keeps inline views. It is
//! beside `suite`.

#![allow(missing_docs, clippy::unwrap_used)]

use crate::suite::{bank, test_store};

mod inline;
mod lifecycles;
