//! Headers in the form that the client takes.

use rdkafka::message::{Header, OwnedHeaders};

/// Names and values, in this order.
pub(crate) fn headers<'a>(
    of: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> OwnedHeaders {
    let start = OwnedHeaders::new_with_capacity(of.len());
    of.fold(start, |headers, (key, value)| {
        headers.insert(Header { key, value })
    })
}
