//! Topics need the feature `kafka`, which this program was built without.

use annals::chrono::NaiveDate;
use annals::prelude::*;

use crate::balances::Balances;

const WHY: &str = "topics need `cargo run --features kafka --example bank`";

pub(crate) async fn publish(_: &Annals, _: &str) -> Result<u64, String> {
    Err(WHY.to_owned())
}

pub(crate) async fn balances(_: &str, _: Option<NaiveDate>) -> Result<Balances, String> {
    Err(WHY.to_owned())
}

pub(crate) async fn leave() {}
