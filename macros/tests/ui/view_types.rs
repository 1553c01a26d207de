//! What the fields and the folds of a view must be.

use annals::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Closed,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent))]
struct NotFolded {
    cents: i64,
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "rates", events(AccountEvent))]
struct NoKey {
    #[view(index)]
    rate: f64,
}

impl Project<AccountEvent> for NoKey {
    fn on(_: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        Ok(())
    }
}

#[derive(Default, Serialize, Deserialize, View)]
#[view(name = "keyed", events(AccountEvent), key = f64)]
struct KeyedByFloat;

impl Project<AccountEvent> for KeyedByFloat {
    fn on(_: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        Ok(())
    }
}

#[derive(Serialize, Deserialize, View)]
#[view(name = "plain", events(AccountEvent))]
struct NoDefault;

impl Project<AccountEvent> for NoDefault {
    fn on(_: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        Ok(())
    }
}

fn main() {}
