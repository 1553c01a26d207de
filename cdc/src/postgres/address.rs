//! Where the server is: one URL for two clients, and the settings under which values are written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;

use percent_encoding::percent_decode_str;
use pgwire_replication::{ReplicationConfig, SslMode, TlsConfig};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::Settings;
use super::errors::stop;
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

/// Timeouts that a role, a database or the server may set, and that would end each try to read a
/// large table, or the session that holds its snapshot.
const NO_TIMEOUTS: [(&str, &str); 4] = [
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// The same of one that servers before PostgreSQL 17 do not know, and would refuse as an option of
/// the start; and the process of the server. To be run first.
pub(super) const BEGIN: &str = "select pg_backend_pid(), (select set_config(name, '0', false) \
    from pg_catalog.pg_settings where name = 'transaction_timeout')";

/// What a URL may ask for the sake of safety, and neither client does.
const NOT_FOLLOWED: [&str; 7] = [
    "channel_binding",
    "gssencmode",
    "requirepeer",
    "require_auth",
    "sslcrl",
    "sslpassword",
    "ssl_min_protocol_version",
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
    certificates: Certificates,
}

/// The files that a URL or the environment names for an encrypted connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Certificates {
    roots: Option<PathBuf>,
    own: Option<(PathBuf, PathBuf)>,
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
            certificates: Certificates::of(url)?,
            control: control
                .application_name("annals cdc")
                .extra_float_digits(3)
                .options(
                    PINNED
                        .into_iter()
                        .filter(|(name, _)| *name != "client_encoding")
                        .chain(NO_TIMEOUTS),
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
            .chain(&NO_TIMEOUTS)
            .map(|(name, value)| format!("-c {name}={value}"))
            .collect();
        let control = &self.control;
        let socket = control.get_socket().map(|path| path.display().to_string());
        let host = socket.as_deref().unwrap_or(control.get_host());
        let start = pgwire_replication::Lsn::from_u64(start.get());
        ReplicationConfig::new(
            host,
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
        .with_application_name("annals cdc")
        .with_tls(self.encryption())
    }

    /// As the client for SQL encrypts.
    fn encryption(&self) -> TlsConfig {
        let roots = self.certificates.roots.clone();
        let tls = match self.control.get_ssl_mode() {
            _ if self.control.get_socket().is_some() => TlsConfig::disabled(),
            PgSslMode::Require => TlsConfig::require(),
            PgSslMode::VerifyCa => TlsConfig::verify_ca(roots),
            PgSslMode::VerifyFull => TlsConfig::verify_full(roots),
            PgSslMode::Prefer => {
                let mut tls = TlsConfig::disabled();
                tls.mode = SslMode::Prefer;
                tls
            }
            _ => TlsConfig::disabled(),
        };
        match &self.certificates.own {
            Some((certificate, key)) => tls.with_client_cert(certificate, key),
            None => tls,
        }
    }
}

impl Certificates {
    /// What both clients need to be told; a name that only one of them would follow is refused.
    fn of(url: &str) -> Result<Certificates, SourceError> {
        for name in NOT_FOLLOWED {
            if let Some(value) = parameter(url, name)
                && !matches!(&*value, "" | "disable" | "prefer")
            {
                return Err(stop(format!(
                    "`{name}` of the URL is not followed here, and what it asks for is not kept: \
                     leave it out"
                )));
            }
        }
        let file = |names: &[&str], variable: &str| -> Result<Option<PathBuf>, SourceError> {
            let named = names.iter().find_map(|name| parameter(url, name));
            let Some(named) = named.or_else(|| std::env::var(variable).ok()) else {
                return Ok(None);
            };
            let name = names.first().copied().unwrap_or_default();
            if named.trim_start().starts_with("-----BEGIN") {
                return Err(stop(format!(
                    "`{name}` holds a certificate or a key itself: write it into a file, and say \
                     its path"
                )));
            }
            if !std::path::Path::new(&named).is_file() {
                return Err(stop(format!("`{name}` names {named}, which is no file")));
            }
            Ok(Some(named.into()))
        };
        let roots = file(&["sslrootcert", "ssl-root-cert", "ssl-ca"], "PGSSLROOTCERT")?;
        let certificate = file(&["sslcert", "ssl-cert"], "PGSSLCERT")?;
        let key = file(&["sslkey", "ssl-key"], "PGSSLKEY")?;
        let own = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(stop("`sslcert` and `sslkey` go together: one is missing")),
        };
        Ok(Certificates { roots, own })
    }
}

/// The value of a parameter of a URL.
fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(of, _)| *of == name);
    found.next_back().map(|(_, value)| {
        let value = value.replace('+', " ");
        percent_decode_str(&value).decode_utf8_lossy().into_owned()
    })
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
    parameter(url, "password")
        .or(found)
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
    fn certificates_are_for_both_clients_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let (roots, own, key) = (file("the roots.pem"), file("own.pem"), file("own.key"));
        let parsed = |query: &str| {
            let url = format!("postgres://me@db/shop?{query}");
            Address::parse(&ServerUrl(url))
        };
        let shown = |path: &PathBuf| path.display().to_string();
        let query = format!(
            "sslmode=verify-full&sslrootcert={}&ssl-cert={}&sslkey={}",
            shown(&roots).replace(' ', "%20"),
            shown(&own),
            shown(&key)
        );
        let tls = parsed(&query).unwrap().encryption();
        let wanted = TlsConfig::verify_full(Some(roots.clone())).with_client_cert(&own, &key);
        assert_eq!(tls, wanted);
        for (query, what) in [
            (format!("sslcert={}", shown(&own)), "`sslkey` go together"),
            ("sslrootcert=/none.pem".to_owned(), "/none.pem, which is no"),
            ("sslkey=-----BEGIN%20KEY".to_owned(), "say its path"),
            ("channel_binding=require".to_owned(), "is not followed"),
        ] {
            let error = parsed(&query).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
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
