//! What a cart says yes and no to. No store is needed to know.

use annals::prelude::*;
use annals::testing;

use crate::cart::{Cart, CartEvent};
use crate::coupon::{Coupon, CouponUse};
use crate::price::Price;

fn added(sku: &str, quantity: u32, price: Price) -> CartEvent {
    CartEvent::Added {
        sku: sku.to_owned(),
        quantity,
        price,
    }
}

#[test]
fn a_cart_is_filled_changed_and_checked_out() {
    let story = Cart::given([])
        .step("check out", Cart::check_out)
        .step("add 2 tea", |cart| cart.add("tea", 2, Price::euros(4, 50)))
        .step("add 1 pot", |cart| cart.add("pot", 1, Price::euros(24, 0)))
        .step("5 tea instead", |cart| cart.change_quantity("tea", 5))
        .step("5 tea again", |cart| cart.change_quantity("tea", 5))
        .step("tea costs 4.90", |cart| {
            cart.change_price("tea", Price::euros(4, 90))
        })
        .step("remove pot", |cart| cart.remove("pot"))
        .step("remove pot again", |cart| cart.remove("pot"))
        .step("check out", Cart::check_out)
        .step("add 1 pot", |cart| cart.add("pot", 1, Price::euros(24, 0)));
    insta::assert_snapshot!(story);
}

#[test]
fn a_used_coupon_is_refused() {
    let spring = Coupon {
        code: "SPRING".to_owned(),
        percent: 10,
    };
    let story = Cart::given([added("tea", 1, Price::euros(4, 50))])
        .step("SPRING, used elsewhere", |cart| {
            cart.apply_coupon(&spring, &CouponUse { used: true })
        })
        .step("SPRING", |cart| {
            cart.apply_coupon(&spring, &CouponUse::default())
        })
        .step("SPRING again", |cart| {
            cart.apply_coupon(&spring, &CouponUse { used: true })
        });
    insta::assert_snapshot!(story);
}

#[test]
fn a_coupon_that_another_cart_used_is_refused() {
    let spring = Coupon {
        code: "SPRING".to_owned(),
        percent: 10,
    };
    let mut story = testing::world()
        .given("cart-ada", [added("tea", 1, Price::euros(4, 50))])
        .given("cart-ben", [added("kettle", 1, Price::euros(39, 90))])
        .given(
            "cart-cleo",
            [CartEvent::CouponApplied {
                code: "SUMMER".to_owned(),
                percent: 5,
            }],
        );
    for cart in ["ada", "ben"] {
        story = story.when(format!("{cart} applies SPRING")).decide(
            (Cart::at(cart), CouponUse::of(&spring).unwrap()),
            |(cart, uses)| cart.apply_coupon(&spring, uses).map(|event| (event, ())),
        );
    }
    insta::assert_snapshot!(story);
}

#[test]
fn a_cart_of_last_year_reads_with_a_currency() {
    let story = Cart::given_stored([("cart.added", 1, r#"{"sku":"tea","price_cents":450}"#)])
        .step("add 2 tea", |cart| cart.add("tea", 2, Price::euros(4, 90)));
    insta::assert_snapshot!(story);
}

#[test]
fn quantities_and_currencies_have_limits() {
    let dollars = Price {
        cents: 100,
        currency: "USD".to_owned(),
    };
    Cart::given([added("tea", 999, Price::euros(1, 0))])
        .when(|cart| cart.add("pot", 0, Price::euros(1, 0)))
        .assert_refused("nothing can be added zero times; remove it instead")
        .when(|cart| cart.add("tea", 2, Price::euros(1, 0)))
        .assert_refused("1001 of one thing are more than a cart takes")
        .when(|cart| cart.add("pot", 1, dollars))
        .assert_refused("the cart is in EUR")
        .when(|cart| cart.change_quantity("pot", 1))
        .assert_refused("there is no `pot` in the cart");
}
