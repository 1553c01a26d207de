//! A short story: a cart from last year, a price that changes, a coupon that two customers want,
//! and the last pot.

use std::error::Error;
use std::io::Write;

use annals::Loaded;
use annals::prelude::*;
use annals::store::{Append, NewEvent};

use crate::cart::{Cart, CartError};
use crate::checkout::check_out;
use crate::coupon::{Coupon, CouponUse};
use crate::price::Price;
use crate::sold::Sold;
use crate::stock::Stock;

/// Tells it on a store where nothing has happened yet.
pub(crate) async fn tell(db: &Annals, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let db = &db
        .clone()
        .with(ViewSetup::<Sold>::new().inline())
        .start()
        .await?;
    let ada = db.aggregate::<Cart>("ada");
    let ben = db.aggregate::<Cart>("ben");

    writeln!(
        out,
        "Ada's cart is from last year, when prices were bare numbers:\n"
    )?;
    record_as_last_year(db).await?;
    show_stored(db, out).await?;
    writeln!(
        out,
        "\nIt reads as one piece at 4.50 EUR today, through an upcaster. Nothing stored was \
         changed.\n"
    )?;
    show("Ada", &ada.load().await?, out)?;

    writeln!(
        out,
        "\nShe takes more tea, and a pot; the price of tea goes up meanwhile.\n"
    )?;
    ada.run(|cart| cart.change_quantity("tea", 3)).await?;
    ada.run(|cart| cart.add("pot", 1, Price::euros(24, 0)))
        .await?;
    ada.run(|cart| cart.add("cups", 2, Price::euros(6, 25)))
        .await?;
    ada.run(|cart| cart.remove("cups")).await?;
    ada.run(|cart| cart.change_price("tea", Price::euros(4, 90)))
        .await?;
    show("Ada", &ada.load().await?, out)?;

    writeln!(
        out,
        "\nBen fills a cart too. Both have the coupon SPRING, which works once.\n"
    )?;
    ben.run(|cart| cart.add("kettle", 1, Price::euros(39, 90)))
        .await?;
    let spring = Coupon {
        code: "SPRING".to_owned(),
        percent: 10,
    };
    for (name, id) in [("Ada", "ada"), ("Ben", "ben")] {
        // One decision over a cart and over what all carts have done with the coupon. When either
        // changes before it is recorded, it is taken again.
        let boundary = (Cart::at(id), CouponUse::of(&spring)?);
        let applied = db.decide(boundary, |(cart, uses)| {
            cart.apply_coupon(&spring, uses).map(|event| (event, ()))
        });
        match applied.await {
            Ok(_) => writeln!(out, "  {name} applies it: {} % off", spring.percent)?,
            Err(CommandError::Refused(refusal)) => {
                writeln!(out, "  {name} applies it: refused, {refusal}")?;
            }
            Err(error) => return Err(error.into()),
        }
    }

    writeln!(
        out,
        "\nBoth check out, and Cem too, who wants the last pot as well. What is sold was there.\n"
    )?;
    for (sku, pieces) in [("tea", 5), ("pot", 1), ("kettle", 1)] {
        let stock = db.aggregate::<Stock>(sku);
        stock.run(|stock| stock.receive(pieces)).await?;
    }
    let cem = db.aggregate::<Cart>("cem");
    cem.run(|cart| cart.add("pot", 1, Price::euros(24, 0)))
        .await?;
    for (name, id) in [("Ada", "ada"), ("Ben", "ben"), ("Cem", "cem")] {
        match check_out(db, id).await {
            Ok(_) => writeln!(out, "  {name} checks out")?,
            Err(CommandError::Refused(refusal)) => {
                writeln!(out, "  {name} checks out: refused, {refusal}")?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    writeln!(out, "\nAfter that a cart stays as it is.\n")?;
    show("Ada", &ada.load().await?, out)?;
    show("Ben", &ben.load().await?, out)?;
    let late = ben
        .run(|cart| cart.add("tea", 1, Price::euros(4, 90)))
        .await;
    if let Err(CommandError::Refused(refusal @ CartError::CheckedOut)) = late {
        writeln!(out, "\n  Ben wants tea as well: refused, {refusal}")?;
    }

    writeln!(
        out,
        "\nWhat was sold is known at once, because it is written with the event:\n"
    )?;
    for cart in db.view::<Sold>().rows().await?.rows {
        let total = cart
            .value
            .total
            .map_or_else(String::new, |total| total.to_string());
        writeln!(out, "  {:<6} {total}", cart.key)?;
    }

    writeln!(out, "\nAda's cart as it was before the price went up:\n")?;
    show("Ada", &ada.load().at_version(5).await?, out)?;
    db.stop().await;
    Ok(())
}

/// Appends `cart.added` in the shape of version 1, byte for byte as a program of last year did.
pub(crate) async fn record_as_last_year(db: &Annals) -> Result<(), Box<dyn Error>> {
    let tea = NewEvent::json(
        "cart.added",
        br#"{"sku":"tea","price_cents":450}"#.as_slice(),
    )
    .schema_version(1);
    db.store()
        .append(Append::new(
            StreamId::of("cart", "ada")?,
            [tea.at(db.clock().now())],
        ))
        .await?;
    Ok(())
}

async fn show_stored(db: &Annals, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    for entry in db.aggregate::<Cart>("ada").history().await?.entries {
        let event = &entry.record;
        writeln!(
            out,
            "  {} v{}  {}",
            event.event_type,
            event.schema_version,
            String::from_utf8_lossy(&event.payload)
        )?;
    }
    Ok(())
}

fn show(name: &str, cart: &Loaded<Cart>, out: &mut impl Write) -> std::io::Result<()> {
    for (sku, line) in &cart.lines {
        writeln!(
            out,
            "  {name:4} {:>3} x {sku:8} {:>11}",
            line.quantity, line.price
        )?;
    }
    if let Some(coupon) = &cart.coupon {
        writeln!(
            out,
            "  {name:4}       {:8} {:>7} %",
            coupon.code,
            -i16::from(coupon.percent)
        )?;
    }
    let checked_out = if cart.checked_out {
        "  checked out"
    } else {
        ""
    };
    match cart.total() {
        Some(total) => writeln!(out, "  {name:4}       total    {total:>11}{checked_out}"),
        None => writeln!(out, "  {name:4}       nothing yet"),
    }
}
