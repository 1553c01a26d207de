//! What a slot gives, read without the replication protocol.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals_cdc::Record;
use annals_cdc::pgoutput::{Decoder, Message, PrimaryKeys};

use crate::server::Server;

/// The settings under which texts of values are always the same.
pub(crate) const PINNED: &str = "set datestyle='ISO,MDY'; set intervalstyle='postgres'; \
    set timezone='UTC'; set extra_float_digits=3; set bytea_output='hex';";

/// What a slot gives, decoded.
pub(crate) fn decoded(server: &Server, database: &str, slot: &str) -> Vec<Record> {
    let read = format!(
        "{PINNED} select encode(data, 'hex') from pg_logical_slot_get_binary_changes('{slot}', \
         null, null, 'proto_version', '1', 'publication_names', 'cdc_pub', 'messages', 'true')"
    );
    let lines = server.psql(database, &read);
    let mut decoder = Decoder::new(PrimaryKeys::new());
    let mut records = Vec::new();
    for line in lines.lines() {
        let message = Message::parse(&bytes(line)).unwrap();
        records.extend(decoder.decode(message).unwrap());
    }
    records
}

/// Bytes of hex digits.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}
