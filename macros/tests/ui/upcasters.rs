//! Every version below the current one can be read.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "cart")]
enum Steps {
    #[event(version = 3, upcast(2 = two))]
    FirstMissing,
    #[event(version = 3, upcast(1 = one))]
    LastMissing,
    #[event(version = 2)]
    AllMissing,
    #[event(version = 2, upcast(1 = one, 2 = two))]
    Beyond,
    #[event(upcast(1 = one))]
    VersionForgotten,
    #[event(version = 2, upcast(1 = one, 1 = two))]
    Twice,
    #[event(version = 2, upcast(0 = one))]
    Zero,
    #[event(version = 2, upcast = one)]
    NoVersion,
}

fn one(_: ()) -> u8 {
    0
}

fn two(_: u8) -> Steps {
    Steps::AllMissing
}

#[derive(Event, Serialize, Deserialize)]
#[event(category = "cart", retired("cart.gone", version = 1))]
struct RetiredUnread;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "cart", retired("cart.gone", verson = 1))]
struct RetiredSlip;

fn main() {}
