//! Asking a broker how many brokers it knows, in the few bytes of its protocol that this takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u32 = 1 << 20;

/// How many brokers the one at this address knows; nothing when it does not answer.
pub(crate) fn brokers(address: SocketAddr) -> Option<u32> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    stream.write_all(&metadata_request()).ok()?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).ok()?;
    let size = u32::from_be_bytes(size);
    if size > ANSWER_BYTES_MAX {
        return None;
    }
    let mut answer = vec![0; size as usize];
    stream.read_exact(&mut answer).ok()?;
    known(&answer)
}

/// A metadata request, version 4, about no topic.
fn metadata_request() -> Vec<u8> {
    let client = b"xtask";
    let mut body = Vec::new();
    body.extend(3_i16.to_be_bytes());
    body.extend(4_i16.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend((client.len() as i16).to_be_bytes());
    body.extend(client);
    // No topics, and none is to be made.
    body.extend(0_i32.to_be_bytes());
    body.push(0);
    let mut request = (body.len() as u32).to_be_bytes().to_vec();
    request.extend(body);
    request
}

/// The count of brokers: after the correlation id and the throttle time.
fn known(answer: &[u8]) -> Option<u32> {
    let count = answer.get(8..12)?;
    count.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_its_own_length() {
        let request = metadata_request();
        let (size, body) = request.split_at(4);
        assert_eq!(size, (body.len() as u32).to_be_bytes());
    }

    #[test]
    fn an_answer_that_is_too_short_is_none() {
        assert_eq!(known(&[0; 11]), None);
        assert_eq!(known(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 9]), Some(3));
    }
}
