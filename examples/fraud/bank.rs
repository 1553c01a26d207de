//! What happens at the bank: payments, log-ins, and what other programs say about a payment.

use annals::prelude::*;

/// A user paid.
#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "payment")]
pub(crate) enum PaymentEvent {
    Paid(Payment),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) id: String,
    pub(crate) user: String,
    /// When, in microseconds since 1970.
    pub(crate) at: i64,
    pub(crate) cents: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) country: String,
}

/// A user logged in.
#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "login")]
pub(crate) enum LoginEvent {
    LoggedIn { user: String, country: String },
}

/// What the service that knows merchants answered about a payment.
#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "merchant")]
pub(crate) enum MerchantEvent {
    Answered { payment: String, trusted: bool },
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "alert")]
pub(crate) enum AlertEvent {
    Raised { user: String, alert: Alert },
}

/// A user was blocked.
#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "customer")]
pub(crate) enum CustomerEvent {
    Blocked { because: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Alert {
    /// More than three payments in five minutes.
    Many { payments: usize },
    /// More than five.
    VeryMany { payments: usize },
    /// One amount above the limit.
    High { payment: String, cents: i64 },
    /// The sum of five minutes above it.
    Total { cents: i64 },
    /// Several countries within a session.
    Countries { found: Vec<String> },
    /// Three times the mean of the payments before.
    Spike {
        payment: String,
        cents: i64,
        mean: i64,
    },
    /// A log-in in one country and a payment in another, within five minutes.
    Apart { login: String, payment: String },
    /// A large payment to a merchant that is not trusted, or of whom nothing was heard in time.
    Merchant { payment: String, answered: bool },
}

/// What is done about an alert; the worst one of a user counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Verdict {
    #[default]
    Notify,
    Review,
    Block,
}

impl Alert {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Alert::Many { .. } | Alert::High { .. } => Verdict::Notify,
            Alert::Total { .. } | Alert::Spike { .. } | Alert::Merchant { .. } => Verdict::Review,
            Alert::VeryMany { .. } | Alert::Countries { .. } | Alert::Apart { .. } => {
                Verdict::Block
            }
        }
    }

    /// Which rule it is.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Alert::Many { .. } => "many payments",
            Alert::VeryMany { .. } => "very many payments",
            Alert::High { .. } => "high amount",
            Alert::Total { .. } => "high total",
            Alert::Countries { .. } => "several countries",
            Alert::Spike { .. } => "spike",
            Alert::Apart { .. } => "log-in elsewhere",
            Alert::Merchant { .. } => "merchant",
        }
    }
}
