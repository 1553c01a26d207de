//! A deployment without a pause: while an event gets a new version, old and new programs run side
//! by side on one log.
//!
//! It takes two releases. The first one reads version 2 and still writes version 1; when every
//! program is of that release, the second one writes version 2. At no time does a program meet an
//! event that it cannot read.

#![allow(missing_docs, clippy::unwrap_used)]

use annals::prelude::*;
use annals::testing;

/// The release that is running: it knows version 1 alone.
mod before {
    use super::*;

    #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[event(category = "purse")]
    pub(super) enum PurseEvent {
        Paid { euros: u64 },
    }
}

/// The first release: it writes version 1, and reads version 2 as what it would have written.
mod first {
    use super::*;

    #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[event(category = "purse", retired("purse.paid", version = 2, upcast = in_euros))]
    pub(super) enum PurseEvent {
        Paid { euros: u64 },
    }

    /// The shape of the next release.
    #[derive(Deserialize)]
    struct PaidV2 {
        cents: u64,
    }

    fn in_euros(PaidV2 { cents }: PaidV2) -> PurseEvent {
        PurseEvent::Paid { euros: cents / 100 }
    }
}

/// The second release: it writes version 2.
mod second {
    use super::*;

    #[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[event(category = "purse")]
    pub(super) enum PurseEvent {
        #[event(version = 2, upcast(1 = in_cents))]
        Paid { cents: u64 },
    }

    #[derive(Deserialize)]
    struct PaidV1 {
        euros: u64,
    }

    fn in_cents(PaidV1 { euros }: PaidV1) -> PurseEvent {
        PurseEvent::Paid { cents: euros * 100 }
    }
}

macro_rules! purse {
    ($name:ident, $release:ident, $unit:ident) => {
        #[derive(Clone, Debug, Default)]
        struct $name {
            total: u64,
        }

        impl Aggregate for $name {
            type Event = $release::PurseEvent;

            fn apply(&mut self, event: &$release::PurseEvent) {
                let $release::PurseEvent::Paid { $unit } = event;
                self.total += $unit;
            }
        }

        impl $name {
            fn pay(&self, $unit: u64) -> Result<$release::PurseEvent, std::convert::Infallible> {
                Ok($release::PurseEvent::Paid { $unit })
            }
        }
    };
}

purse!(Before, before, euros);
purse!(First, first, euros);
purse!(Second, second, cents);

#[tokio::test]
async fn old_and_new_programs_run_together_in_both_releases() {
    let world = testing::annals();
    let db: &Annals = &world;
    for _ in 0..3 {
        db.aggregate::<Before>("ada")
            .run(|purse| purse.pay(1))
            .await
            .unwrap();
        db.aggregate::<First>("ada")
            .run(|purse| purse.pay(1))
            .await
            .unwrap();
    }
    for _ in 0..3 {
        db.aggregate::<First>("ada")
            .run(|purse| purse.pay(1))
            .await
            .unwrap();
        db.aggregate::<Second>("ada")
            .run(|purse| purse.pay(100))
            .await
            .unwrap();
    }
    let in_euros = db.aggregate::<First>("ada").load().await.unwrap().total;
    let in_cents = db.aggregate::<Second>("ada").load().await.unwrap().total;
    assert_eq!((in_euros, in_cents), (12, 1_200));
}

#[tokio::test]
async fn without_the_first_release_an_old_program_cannot_read() {
    let world = testing::annals();
    let db: &Annals = &world;
    db.aggregate::<Second>("ada")
        .run(|purse| purse.pay(100))
        .await
        .unwrap();
    let error = db.aggregate::<Before>("ada").load().await.unwrap_err();
    assert!(error.to_string().contains("purse"), "{error}");
}
