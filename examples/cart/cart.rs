//! A cart: what happens to it, what it is, and what it decides.

use std::collections::BTreeMap;

use annals::prelude::*;

use crate::coupon::{Coupon, CouponUse};
use crate::past::with_currency;
use crate::price::Price;

/// What happens to a cart.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "cart")]
pub(crate) enum CartEvent {
    /// Its shape has changed once: events of version 1 are still in the log, and read through
    /// `with_currency`.
    #[event(version = 2, upcast(1 = with_currency))]
    Added {
        sku: String,
        quantity: u32,
        price: Price,
    },
    Removed {
        sku: String,
    },
    QuantityChanged {
        sku: String,
        quantity: u32,
    },
    /// The shop changed a price while the article was in the cart.
    PriceChanged {
        sku: String,
        price: Price,
    },
    CouponApplied {
        /// Also a tag, `coupon:SPRING`: a decision can look for it in all carts at once.
        #[event(tag = "coupon")]
        code: String,
        percent: u8,
    },
    CheckedOut {
        total: Price,
    },
}

/// An article in the cart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) quantity: u32,
    pub(crate) price: Price,
}

/// The state that decisions need, and no more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cart {
    pub(crate) lines: BTreeMap<String, Line>,
    pub(crate) coupon: Option<Coupon>,
    pub(crate) checked_out: bool,
}

impl Aggregate for Cart {
    type Event = CartEvent;

    fn apply(&mut self, event: &CartEvent) {
        match event {
            CartEvent::Added {
                sku,
                quantity,
                price,
            } => {
                let line = self.lines.entry(sku.clone()).or_insert(Line {
                    quantity: 0,
                    price: price.clone(),
                });
                line.quantity += quantity;
                line.price = price.clone();
            }
            CartEvent::Removed { sku } => {
                self.lines.remove(sku);
            }
            CartEvent::QuantityChanged { sku, quantity } => {
                if let Some(line) = self.lines.get_mut(sku) {
                    line.quantity = *quantity;
                }
            }
            CartEvent::PriceChanged { sku, price } => {
                if let Some(line) = self.lines.get_mut(sku) {
                    line.price = price.clone();
                }
            }
            CartEvent::CouponApplied { code, percent } => {
                self.coupon = Some(Coupon {
                    code: code.clone(),
                    percent: *percent,
                });
            }
            CartEvent::CheckedOut { .. } => self.checked_out = true,
        }
    }
}

/// Why a cart says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CartError {
    #[error("the cart is checked out")]
    CheckedOut,
    #[error("there is no `{0}` in the cart")]
    NotInCart(String),
    #[error("nothing can be added zero times; remove it instead")]
    Zero,
    #[error("{0} of one thing are more than a cart takes")]
    TooMany(u32),
    #[error("the cart is in {0}")]
    OtherCurrency(String),
    #[error("coupon `{0}` was used before")]
    CouponUsed(String),
    #[error("the cart has a coupon already: `{0}`")]
    HasCoupon(String),
    #[error("the cart is empty")]
    Empty,
}

/// The most of one article that a cart takes.
const QUANTITY_MAX: u32 = 1_000;

impl Cart {
    pub(crate) fn add(
        &self,
        sku: &str,
        quantity: u32,
        price: Price,
    ) -> Result<CartEvent, CartError> {
        self.must_be_open()?;
        let there = self.lines.get(sku).map_or(0, |line| line.quantity);
        must_be_a_quantity(quantity)?;
        must_be_a_quantity(there.saturating_add(quantity))?;
        self.must_be_in(&price)?;
        Ok(CartEvent::Added {
            sku: sku.to_owned(),
            quantity,
            price,
        })
    }

    pub(crate) fn remove(&self, sku: &str) -> Result<CartEvent, CartError> {
        self.line(sku)?;
        Ok(CartEvent::Removed {
            sku: sku.to_owned(),
        })
    }

    /// Nothing happens when it is the quantity already: a decision may return no event.
    pub(crate) fn change_quantity(
        &self,
        sku: &str,
        quantity: u32,
    ) -> Result<Option<CartEvent>, CartError> {
        must_be_a_quantity(quantity)?;
        let changed = self.line(sku)?.quantity != quantity;
        Ok(changed.then(|| CartEvent::QuantityChanged {
            sku: sku.to_owned(),
            quantity,
        }))
    }

    pub(crate) fn change_price(
        &self,
        sku: &str,
        price: Price,
    ) -> Result<Option<CartEvent>, CartError> {
        self.must_be_in(&price)?;
        let changed = self.line(sku)?.price != price;
        Ok(changed.then(|| CartEvent::PriceChanged {
            sku: sku.to_owned(),
            price,
        }))
    }

    /// Decides over two things: this cart, and what all carts have done with the coupon.
    pub(crate) fn apply_coupon(
        &self,
        coupon: &Coupon,
        uses: &CouponUse,
    ) -> Result<CartEvent, CartError> {
        self.must_be_open()?;
        if let Some(coupon) = &self.coupon {
            return Err(CartError::HasCoupon(coupon.code.clone()));
        }
        if uses.used {
            return Err(CartError::CouponUsed(coupon.code.clone()));
        }
        Ok(CartEvent::CouponApplied {
            code: coupon.code.clone(),
            percent: coupon.percent,
        })
    }

    pub(crate) fn check_out(&self) -> Result<CartEvent, CartError> {
        self.must_be_open()?;
        let total = self.total().ok_or(CartError::Empty)?;
        Ok(CartEvent::CheckedOut { total })
    }

    /// What the cart costs, the coupon taken off; nothing, when it is empty.
    pub(crate) fn total(&self) -> Option<Price> {
        let currency = self.currency()?.to_owned();
        let full: u64 = self
            .lines
            .values()
            .map(|line| line.price.cents * u64::from(line.quantity))
            .sum();
        let percent = self
            .coupon
            .as_ref()
            .map_or(0, |coupon| u64::from(coupon.percent.min(100)));
        // A fraction of a cent is the shop's.
        Some(Price {
            cents: full - full * percent / 100,
            currency,
        })
    }

    fn currency(&self) -> Option<&str> {
        self.lines.values().next().map(|line| &*line.price.currency)
    }

    fn line(&self, sku: &str) -> Result<&Line, CartError> {
        self.must_be_open()?;
        self.lines
            .get(sku)
            .ok_or_else(|| CartError::NotInCart(sku.to_owned()))
    }

    fn must_be_open(&self) -> Result<(), CartError> {
        if self.checked_out {
            Err(CartError::CheckedOut)
        } else {
            Ok(())
        }
    }

    fn must_be_in(&self, price: &Price) -> Result<(), CartError> {
        match self.currency() {
            Some(currency) if currency != price.currency => {
                Err(CartError::OtherCurrency(currency.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn must_be_a_quantity(quantity: u32) -> Result<(), CartError> {
    match quantity {
        0 => Err(CartError::Zero),
        1..=QUANTITY_MAX => Ok(()),
        more => Err(CartError::TooMany(more)),
    }
}
