//! What holds for any input: results equal those of a plain model, and do not depend on pages, on
//! restarts, or on the order of arrival within the bound.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop there"
)]

#[path = "properties/joins.rs"]
mod joins;
#[path = "properties/model.rs"]
mod model;
#[path = "properties/pages.rs"]
mod pages;
#[path = "properties/patterns.rs"]
mod patterns;
mod support;
#[path = "properties/windows.rs"]
mod windows;
