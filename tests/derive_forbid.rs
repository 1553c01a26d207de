//! Derived code compiles where a user forbids lints, and reports nothing as deprecated.

#![forbid(deprecated, unsafe_code)]
#![allow(missing_docs)]

use annals::prelude::*;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Opened {
        #[event(tag)]
        owner: String,
    },
}

#[test]
fn events_are_derived_where_deprecated_is_forbidden() {
    let event = AccountEvent::Opened {
        owner: "Ada".to_owned(),
    };
    assert_eq!(event.shape().event_type, "account.opened");
    assert_eq!(event.tags().unwrap_or_default().len(), 1);
}
