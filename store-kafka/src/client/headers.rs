//! Headers in the form that the client takes, and back.

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};

/// Names and values, in this order.
pub(crate) fn headers<'a>(
    of: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> OwnedHeaders {
    let start = OwnedHeaders::new_with_capacity(of.len());
    of.fold(start, |headers, (key, value)| {
        headers.insert(Header { key, value })
    })
}

/// The headers of a record, in their own bytes.
pub(crate) fn headers_of(message: &BorrowedMessage<'_>) -> Vec<(String, Option<Bytes>)> {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    headers
        .map(|header| {
            let value = header.value.map(Bytes::copy_from_slice);
            (header.key.to_owned(), value)
        })
        .collect()
}
