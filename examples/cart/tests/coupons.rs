//! A coupon works once, however many ask at the same time.

use annals::CommandError;
use annals::prelude::*;

use crate::cart::{Cart, CartError};
use crate::coupon::{Coupon, CouponUse};
use crate::price::Price;

async fn apply(
    db: Annals,
    cart: String,
    coupon: Coupon,
) -> Result<Committed, CommandError<CartError>> {
    let boundary = (Cart::at(cart), CouponUse::of(&coupon)?);
    db.decide(boundary, |(cart, uses)| {
        cart.apply_coupon(&coupon, uses).map(|event| (event, ()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_carts_exactly_one_gets_the_coupon() {
    let db = Annals::in_memory();
    let spring = Coupon {
        code: "SPRING".to_owned(),
        percent: 10,
    };
    let mut carts = tokio::task::JoinSet::new();
    for number in 0..16 {
        carts.spawn(apply(db.clone(), format!("c{number}"), spring.clone()));
    }
    let mut applied = 0;
    let mut refused = 0;
    while let Some(outcome) = carts.join_next().await {
        match outcome.unwrap() {
            Ok(_) => applied += 1,
            Err(
                CommandError::Refused(CartError::CouponUsed(_)) | CommandError::Contended { .. },
            ) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((applied, refused), (1, 15));
}

#[tokio::test]
async fn another_coupon_is_another_matter() {
    let db = Annals::in_memory();
    for (cart, code) in [("ada", "SPRING"), ("ben", "SUMMER")] {
        let coupon = Coupon {
            code: code.to_owned(),
            percent: 10,
        };
        apply(db.clone(), cart.to_owned(), coupon).await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_coupon_changes_nothing() {
    let db = Annals::in_memory();
    let spring = Coupon {
        code: "SPRING".to_owned(),
        percent: 10,
    };
    let ben = db.aggregate::<Cart>("ben");
    ben.run(|cart| cart.add("kettle", 1, Price::euros(39, 90)))
        .await
        .unwrap();
    apply(db.clone(), "ada".to_owned(), spring.clone())
        .await
        .unwrap();
    let refused = apply(db.clone(), "ben".to_owned(), spring).await;
    assert!(
        matches!(
            refused,
            Err(CommandError::Refused(CartError::CouponUsed(_)))
        ),
        "{refused:?}"
    );
    let ben = ben.load().await.unwrap();
    assert_eq!((ben.version(), &ben.coupon), (Version::new(1), &None));
}
