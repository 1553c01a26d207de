//! What upcasters give is pinned.

use std::path::PathBuf;

use annals::prelude::*;
use annals::testing::EventsLock;

use crate::life::{Life, Program};

macro_rules! upcasted {
    ($name:ident, $old:ident, $result:expr) => {
        program! { $name,
            #[derive(Event, Debug, Serialize, Deserialize)]
            #[event(category = "note")]
            enum NoteEvent {
                #[event(version = 2, upcast(1 = upcast))]
                Paid { cents: u64 },
            }

            #[derive(Deserialize)]
            struct PaidV1 {
                #[allow(dead_code, reason = "one of the upcasters does not look at it")]
                euros: u64,
                #[serde(default)]
                cents: u64,
            }

            fn upcast($old: PaidV1) -> Option<NoteEvent> {
                $result
            }

            fn samples() -> [NoteEvent; 1] {
                [NoteEvent::Paid { cents: 500 }]
            }
        }
    };
}

program! { first_version,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        Paid { euros: u64 },
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Paid { euros: 7 }]
    }
}
upcasted!(
    hundred,
    old,
    Some(NoteEvent::Paid {
        cents: old.euros * 100 + old.cents
    })
);
upcasted!(
    thousand,
    old,
    Some(NoteEvent::Paid {
        cents: old.euros * 1_000 + old.cents
    })
);
upcasted!(
    forgotten,
    _old,
    None.filter(|_: &NoteEvent| _old.euros + _old.cents > 0)
);
upcasted!(misread, old, Some(NoteEvent::Paid { cents: old.cents }));

program! { third_version,
    #[derive(Event, Debug, Serialize, Deserialize)]
    #[event(category = "note")]
    enum NoteEvent {
        #[event(version = 3, upcast(1 = first, 2 = second))]
        Paid { amount: String },
    }

    #[derive(Deserialize)]
    struct PaidV1 {
        euros: u64,
    }

    #[derive(Deserialize)]
    struct PaidV2 {
        cents: u64,
    }

    fn first(PaidV1 { euros }: PaidV1) -> PaidV2 {
        PaidV2 { cents: euros * 100 }
    }

    fn second(PaidV2 { cents }: PaidV2) -> NoteEvent {
        NoteEvent::Paid { amount: format!("{cents} ct") }
    }

    fn samples() -> [NoteEvent; 1] {
        [NoteEvent::Paid { amount: "500 ct".into() }]
    }
}

#[test]
fn results_of_upcasters_are_pinned() {
    for other in [
        thousand::program as Program,
        forgotten::program,
        misread::program,
    ] {
        let life = Life::begin(first_version::program);
        life.released(hundred::program);
        let why = life.refuses(other);
        assert!(
            why.contains("`note.paid` v1 becomes another event than it did"),
            "{why}"
        );
    }
    // One version more changes what it is today, and not what it became.
    let life = Life::begin(first_version::program);
    life.released(hundred::program);
    life.released(third_version::program);
    assert!(life.text().contains(
        "    sample json {\"euros\":7}\n    becomes note.paid v2 json {\"cents\":700}\n"
    ));
}
