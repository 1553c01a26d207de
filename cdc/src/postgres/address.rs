//! Where the server is: one URL for two clients, and the settings under which values are written.

use std::fmt;
use std::str::FromStr as _;

use percent_encoding::percent_decode_str;
use pgwire_replication::{ReplicationConfig, SslMode, TlsConfig};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::Settings;
use crate::ingest::{SourceError, SourceFailure};
use crate::lsn::Lsn;
use crate::schema::quoted;

/// Under these the text of every value is the same, whatever the role, the database and the server
/// say.
pub(super) const PINNED: [(&str, &str); 6] = [
    ("datestyle", "ISO,MDY"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
];

/// The URL of a server, which holds a password.
#[derive(Clone)]
pub(crate) struct ServerUrl(pub(crate) String);

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerUrl(…)")
    }
}

/// A server, for both clients.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) control: PgConnectOptions,
    password: String,
}

/// Without the password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("host", &self.control.get_host())
            .field("port", &self.control.get_port())
            .field("database", &self.control.get_database())
            .field("user", &self.control.get_username())
            .finish_non_exhaustive()
    }
}

impl Address {
    pub(super) fn parse(ServerUrl(url): &ServerUrl) -> Result<Address, SourceError> {
        // Without its cause, which may quote a part of a password.
        let control = PgConnectOptions::from_str(url).map_err(|_| {
            let text = "the URL of the server cannot be read: it is \
                postgres://USER:PASSWORD@HOST:PORT/DATABASE, with `@`, `:`, `/`, `?`, `#` and `%` \
                in a user or a password percent-encoded";
            SourceError::new(SourceFailure::Stop, text)
        })?;
        Ok(Address {
            control: control
                .application_name("annals cdc")
                .extra_float_digits(3)
                .options(
                    PINNED
                        .into_iter()
                        .filter(|(name, _)| *name != "client_encoding"),
                ),
            password: password(url),
        })
    }

    /// For the replication session, which begins after `start`.
    pub(super) fn replication(
        &self,
        settings: &Settings,
        slot: &str,
        publication: &str,
        start: Lsn,
    ) -> ReplicationConfig {
        let options: Vec<String> = PINNED
            .iter()
            .map(|(name, value)| format!("-c {name}={value}"))
            .collect();
        let control = &self.control;
        let start = pgwire_replication::Lsn::from_u64(start.get());
        let mut config = ReplicationConfig::new(
            control.get_host(),
            control.get_username(),
            self.password.as_str(),
            control.get_database().unwrap_or(control.get_username()),
            slot,
            // It goes into a list of quoted names.
            quoted(publication),
        )
        .with_port(control.get_port())
        .with_start_lsn(start)
        .with_ack_lsn(start)
        .with_status_interval(settings.status_interval)
        .with_wakeup_interval(settings.status_interval)
        .with_buffer_size(64)
        .with_options(options.join(" "))
        .with_application_name("annals cdc");
        config = config.with_tls(match control.get_ssl_mode() {
            PgSslMode::Require => TlsConfig::require(),
            PgSslMode::VerifyCa => TlsConfig::verify_ca(None),
            PgSslMode::VerifyFull => TlsConfig::verify_full(None),
            PgSslMode::Prefer => {
                let mut tls = TlsConfig::disabled();
                tls.mode = SslMode::Prefer;
                tls
            }
            _ => TlsConfig::disabled(),
        });
        config
    }
}

/// The password of a URL, with what is escaped in it; the client for SQL does not give it out.
fn password(url: &str) -> String {
    let found = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?']).next())
        .and_then(|authority| authority.rsplit_once('@'))
        .and_then(|(user, _)| user.split_once(':'))
        .map(|(_, password)| {
            percent_decode_str(password)
                .decode_utf8_lossy()
                .into_owned()
        });
    found
        .or_else(|| std::env::var("PGPASSWORD").ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_as_it_was_meant() {
        assert_eq!(password("postgres://me:s%40c:ret@db/shop"), "s@c:ret");
        assert_eq!(
            password("postgres://me:100%@db:5432/shop?sslmode=require"),
            "100%"
        );
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = "postgres://me:hidden@db:5432/shop";
        let source = crate::Postgres::at(url);
        let address = Address::parse(&ServerUrl(url.to_owned())).unwrap();
        for shown in [format!("{source:?}"), format!("{address:?}")] {
            assert!(!shown.contains("hidden"), "{shown}");
        }
        // Unencoded signs put the rest of a password elsewhere.
        for url in [
            "postgres://me:hid?sslmode=hidden@db/shop",
            "postgres://me:hid@den:hidden@db:none/shop",
        ] {
            let error = Address::parse(&ServerUrl(url.to_owned())).unwrap_err();
            let shown = format!("{error:?} {error}");
            assert!(!shown.contains("hid"), "{shown}");
        }
    }
}
