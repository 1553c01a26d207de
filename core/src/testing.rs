//! The test kit: what was given, what was decided and what came of it, as text that is the same in
//! every run.
//!
//! Nothing here names a snapshot library: stories and timelines implement
//! [`Display`](std::fmt::Display), which is what `insta::assert_snapshot!` takes.
//!
//! - [`EventsLock`] pins the stored shapes and what folds make of them, so that neither changes
//!   unnoticed.
//! - [`Given`] begins a [`Story`] about one aggregate: what had happened, what is tried, and what
//!   comes of it.
//! - [`world`] begins one about several streams, for decisions that cross them.
//! - [`annals`] is a handle with a clock that only a test moves and ids that count, for tests of
//!   whole programs.
//! - [`timeline`] prints what a store has of a stream, [`timeline_of_log`] of everything.
//!
//! ```
//! use annals_core::Aggregate;
//! use annals_core::testing::Given;
//! # use annals_macros::Event;
//! # use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
//! #[event(category = "account")]
//! # #[event(crate = "annals_core")]
//! enum AccountEvent {
//!     Opened { owner: String },
//!     Deposited { cents: i64 },
//!     Withdrawn { cents: i64 },
//! }
//!
//! #[derive(Debug, Default)]
//! struct Account {
//!     cents: i64,
//! }
//!
//! impl Aggregate for Account {
//!     type Event = AccountEvent;
//!
//!     fn apply(&mut self, event: &AccountEvent) {
//!         match event {
//!             AccountEvent::Opened { .. } => {}
//!             AccountEvent::Deposited { cents } => self.cents += cents,
//!             AccountEvent::Withdrawn { cents } => self.cents -= cents,
//!         }
//!     }
//! }
//!
//! impl Account {
//!     fn withdraw(&self, cents: i64) -> Result<AccountEvent, String> {
//!         match self.cents < cents {
//!             true => Err(format!("{} cents are missing", cents - self.cents)),
//!             false => Ok(AccountEvent::Withdrawn { cents }),
//!         }
//!     }
//! }
//!
//! let opened = AccountEvent::Opened { owner: "Alice".into() };
//! let story = Account::given([opened, AccountEvent::Deposited { cents: 50 }])
//!     .step("withdraw 80", |a| a.withdraw(80))
//!     .step("withdraw 50", |a| a.withdraw(50));
//! assert_eq!(story.to_string(), r#"
//! given     1  Opened { owner: "Alice" }  (changed nothing)
//!           2  Deposited { cents: 50 }
//!
//! when     withdraw 80
//! refused  30 cents are missing
//! state    Account { cents: 50 }
//!
//! when     withdraw 50
//! then      3  Withdrawn { cents: 50 }
//! state    Account { cents: 0 }
//! "#.trim());
//! ```
//!
//! Text is stable as far as the types' own `Debug` is: a `HashMap` prints in another order in every
//! run, a `BTreeMap` does not.

mod bench;
mod given;
mod lock;
mod refusal;
mod story;
mod text;
mod timeline;
mod watched;
mod world;

pub use bench::{Bench, annals};
pub use given::Given;
pub use lock::{Drift, EventsLock, Update};
pub use story::Story;
pub use timeline::{Timeline, timeline, timeline_of_log};
pub use world::{World, world};
