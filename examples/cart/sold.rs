//! Which carts were sold, and for how much: a read model that is written with the event, so it is
//! there as soon as the cart is checked out.

use annals::prelude::*;

use crate::cart::CartEvent;
use crate::price::Price;

/// A cart that was checked out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "sold", version = 1, events(CartEvent))]
pub(crate) struct Sold {
    pub(crate) total: Option<Price>,
}

impl Project<CartEvent> for Sold {
    fn on(sold: &mut Row<'_, Self>, event: &Recorded<CartEvent>) -> Result<(), Poison> {
        match &**event {
            CartEvent::CheckedOut { total } => sold.total = Some(total.clone()),
            // A cart that is still being filled has no row.
            _ => sold.remove(),
        }
        Ok(())
    }
}
