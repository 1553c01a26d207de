//! What a slot gives, read without the replication protocol.

// What must not fail is unwrapped; each test uses some of this.
#![allow(clippy::unwrap_used, dead_code)]

use annals_cdc::Record;
use annals_cdc::pgoutput::{Decoder, Message, PrimaryKeys};

use crate::server::Server;

/// The settings under which texts of values are always the same.
pub(crate) const PINNED: &str = "set datestyle='ISO,MDY'; set intervalstyle='postgres'; \
    set timezone='UTC'; set extra_float_digits=3; set bytea_output='hex';";

/// The messages that a slot gives.
pub(crate) fn messages(server: &Server, database: &str, slot: &str) -> Vec<Vec<u8>> {
    let read = format!(
        "{PINNED} select encode(data, 'hex') from pg_logical_slot_get_binary_changes('{slot}', \
         null, null, 'proto_version', '1', 'publication_names', 'cdc_pub', 'messages', 'true')"
    );
    server.psql(database, &read).lines().map(bytes).collect()
}

/// What a slot gives, decoded.
pub(crate) fn decoded(server: &Server, database: &str, slot: &str) -> Vec<Record> {
    let mut decoder = Decoder::new(PrimaryKeys::new());
    let messages = messages(server, database, slot);
    let decode = |bytes: &Vec<u8>| decoder.decode(Message::parse(bytes).unwrap()).unwrap();
    messages.iter().filter_map(decode).collect()
}

/// Bytes of hex digits.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}
