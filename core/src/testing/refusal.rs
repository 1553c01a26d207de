//! A refusal in a story: its text, and the error itself for those who ask for its type.

use std::any::Any;
use std::fmt::Display;

pub(super) struct Refusal {
    text: String,
    error: Box<dyn Any + Send>,
}

impl Refusal {
    pub(super) fn new<E: Display + Send + 'static>(error: E) -> Refusal {
        Refusal {
            text: error.to_string(),
            error: Box::new(error),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn of_type<E: 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }
}
