//! An external server: one that `ANNALS_TEST_POSTGRES` names.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a server may take to answer that it is one.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The message with which a client asks whether there is TLS: its length, and a number in place of
/// a version. Every PostgreSQL answers with one byte, before any password.
const IS_THERE_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The server's address without user and password.
pub(crate) fn shown(url: &str) -> String {
    match address(url) {
        Some((host, port)) if !host.is_empty() => format!("{host}:{port}"),
        _ => "the URL in ANNALS_TEST_POSTGRES".to_owned(),
    }
}

/// What is shown of the server when a PostgreSQL answers there; otherwise why not.
pub(crate) fn ask_for_it(url: &str) -> Result<String, String> {
    match answers(url) {
        Ok(()) => Ok(shown(url)),
        Err(why) => Err(format!("{}: {why}", shown(url))),
    }
}

/// Whether a PostgreSQL answers there; otherwise why not.
pub(crate) fn answers(url: &str) -> Result<(), String> {
    let address = address(url).ok_or("it is no URL like postgres://user@host:port/database")?;
    // It names a socket in the file system, which is left to the tests.
    if address.0.is_empty() {
        return Ok(());
    }
    ask(&address).map_err(|error| format!("nothing like PostgreSQL answers there: {error}"))
}

fn ask((host, port): &(String, u16)) -> std::io::Result<()> {
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for address in (host.as_str(), *port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.write_all(&IS_THERE_TLS)?;
                let mut answer = [0];
                stream.read_exact(&mut answer)?;
                return if matches!(&answer, b"S" | b"N") {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::InvalidData.into())
                };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The host, empty when the URL names none, and the port.
fn address(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    let place = rest.split(['/', '?']).next()?;
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let (host, port) = match place
        .strip_prefix('[')
        .and_then(|place| place.split_once(']'))
    {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => place
            .split_once(':')
            .map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(5432), str::parse).ok()?;
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn host_and_port_of_a_url_are_optional() {
        let address = |url| address(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(
            address("postgres://me:pass@db.example:6432/x?sslmode=require").as_deref(),
            Some("db.example 6432")
        );
        assert_eq!(
            address("postgresql://localhost/x").as_deref(),
            Some("localhost 5432")
        );
        assert_eq!(
            address("postgres://me@[::1]:6432").as_deref(),
            Some("::1 6432")
        );
        assert_eq!(
            address("postgres:///x?host=/run/postgresql").as_deref(),
            Some(" 5432")
        );
        assert_eq!(address("sqlite:x.db"), None);
        assert_eq!(address("postgres://localhost:x/"), None);
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            shown("postgres://me:secret@db.example/x?password=secret"),
            "db.example:5432"
        );
        assert_eq!(
            shown("postgres://me:secret@/x?host=/run/postgresql"),
            "the URL in ANNALS_TEST_POSTGRES"
        );
    }

    #[test]
    fn what_is_silent_or_gone_is_no_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "postgres://me@127.0.0.1:{}/x",
            listener.local_addr().unwrap().port()
        );
        let impostor =
            std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"?").unwrap());
        assert!(answers(&url).is_err());
        impostor.join().unwrap();
        assert!(answers(&url).is_err(), "no server listens any more");
    }
}
