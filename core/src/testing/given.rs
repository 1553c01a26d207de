//! Where a story begins.

use std::fmt::{Debug, Display};

use super::story::Story;
use crate::aggregate::Aggregate;

/// Begins stories about an aggregate. Every aggregate whose state and events are `Debug` has it.
///
/// ```
/// use annals_core::testing::Given;
///
/// # fn example<Account, AccountEvent, X, E>(
/// #     opened: AccountEvent, withdraw: fn(&Account, i64) -> Result<X, E>,
/// # )
/// # where
/// #     Account: annals_core::Aggregate<Event = AccountEvent> + Given,
/// #     X: annals_core::IntoEvents<AccountEvent>,
/// #     E: std::fmt::Display + Send + 'static,
/// #     AccountEvent: std::fmt::Debug,
/// #     Account: std::fmt::Debug,
/// # {
/// let story = Account::given([opened]).when(|a| withdraw(a, 80));
/// println!("{story}");
/// # }
/// ```
pub trait Given: Aggregate {
    /// What had happened before: each event is written as a store would keep it, and read back.
    ///
    /// # Panics
    ///
    /// When one cannot be written or read back, naming it.
    #[track_caller]
    fn given(events: impl IntoIterator<Item = Self::Event>) -> Story<Self>;

    /// What was stored before, as (type, schema version, JSON): old shapes come through their
    /// upcasters.
    ///
    /// # Panics
    ///
    /// When one cannot be read, naming it.
    ///
    /// ```
    /// # use annals_core::testing::Given;
    /// # fn example<Account: Given>() {
    /// let story = Account::given_stored([("account.opened", 1, r#"{"name":"Alice"}"#)]);
    /// # }
    /// ```
    #[track_caller]
    fn given_stored<T, J>(events: impl IntoIterator<Item = (T, u32, J)>) -> Story<Self>
    where
        T: AsRef<str>,
        J: Display;
}

impl<A> Given for A
where
    A: Aggregate + Debug,
    A::Event: Debug,
{
    #[track_caller]
    fn given(events: impl IntoIterator<Item = A::Event>) -> Story<A> {
        Story::begin().and_given(events)
    }

    #[track_caller]
    fn given_stored<T, J>(events: impl IntoIterator<Item = (T, u32, J)>) -> Story<A>
    where
        T: AsRef<str>,
        J: Display,
    {
        Story::begin().and_given_stored(events)
    }
}
