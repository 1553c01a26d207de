//! Coupons: each works once, in whichever cart comes first.

use annals::prelude::*;
use annals::{Invalid, Over};

use crate::cart::CartEvent;

/// Some percent off, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Coupon {
    pub(crate) code: String,
    pub(crate) percent: u8,
}

/// What all carts together have done with one coupon. No stream holds this: it is folded from
/// whatever carries the coupon's tag.
#[derive(Debug, Default)]
pub(crate) struct CouponUse {
    pub(crate) used: bool,
}

impl Fold for CouponUse {
    type Event = CartEvent;

    fn apply(&mut self, event: &Recorded<CartEvent>) {
        self.used |= matches!(**event, CartEvent::CouponApplied { .. });
    }
}

impl CouponUse {
    /// The uses of this coupon, as a part of a decision: two carts that try it at the same time
    /// cannot both be first.
    pub(crate) fn of(coupon: &Coupon) -> Result<Over<CouponUse>, Invalid> {
        Ok(CouponUse::over(Query::tagged([Tag::new(
            "coupon",
            &coupon.code,
        )?])))
    }
}
