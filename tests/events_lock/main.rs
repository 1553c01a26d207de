//! `events.lock`: a changed shape, name or fold fails with the reason, and what is new is added on
//! request.

#![cfg(feature = "testing")]
#![allow(missing_docs, clippy::unwrap_used)]

/// Events with other shapes under the names of the first program.
macro_rules! program {
    ($name:ident, $($event:tt)*) => {
        pub(crate) mod $name {
            use super::*;

            $($event)*

            pub(crate) fn program(file: PathBuf) -> EventsLock {
                EventsLock::at(file).events(samples())
            }
        }
    };
}

/// A program of one event, `note.written`, with the type that it holds.
macro_rules! noted {
    ($name:ident, $inner:item, $value:expr) => {
        program! { $name,
            #[allow(unused_imports)]
            use serde::{Deserializer, Serializer};

            $inner

            #[derive(Event, Debug, Serialize, Deserialize)]
            #[event(category = "note")]
            enum NoteEvent {
                Written { inner: Inner },
            }

            fn samples() -> [NoteEvent; 1] {
                [NoteEvent::Written { inner: $value }]
            }
        }
    };
}

mod entries;
mod folds;
mod life;
mod merges;
mod nested;
mod pinned;
mod shapes;
mod upcasters;
#[cfg(feature = "projections")]
mod views;
