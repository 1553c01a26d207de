//! `kafka://` URLs: where brokers are and how to speak to them.

use std::fmt;

use annals_core::StoreError;

use crate::error::invalid;

/// The port of a broker whose URL names none.
const PORT: u16 = 9092;

/// What a URL says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `host:port`, separated by commas.
    pub(crate) bootstrap: String,
    user: Option<(String, String)>,
    /// What follows the hosts: the name of a store.
    pub(crate) name: Option<String>,
    /// Nothing where the URL does not say: then there is none.
    pub(crate) tls: Option<bool>,
    sasl: Option<String>,
    ca: Option<String>,
    pub(crate) client_id: Option<String>,
    /// What only a store understands.
    store: Vec<(String, String)>,
}

/// Settings of a store, which follow its name.
const OF_STORE: [&str; 7] = [
    "accept_foreign",
    "advertise",
    "local",
    "owns",
    "partitions",
    "relaxed_durability",
    "replicas",
];

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Url {
    /// Reads
    /// `kafka://[USER:PASSWORD@]HOST[:PORT][,HOST…][/NAME][?tls=true&sasl=…&ca=…]`, also with
    /// `client_id=…`.
    pub(crate) fn parse(url: &str) -> Result<Url, StoreError> {
        let Some(rest) = url.strip_prefix("kafka://") else {
            return Err(invalid("a Kafka URL begins with `kafka://`"));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (rest, name) = match rest.split_once('/') {
            Some((rest, name)) => (rest, Some(name).filter(|name| !name.is_empty())),
            None => (rest, None),
        };
        let (user, hosts) = match rest.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            // What is before it is no host, but a part of a user and a password.
            None if name.is_some_and(|name| name.contains('@')) || query_has_user(query) => {
                return Err(invalid(
                    "a Kafka URL has an `@` after its hosts; write `/` and `?` in a user or a \
                     password percent-encoded",
                ));
            }
            None => (None, rest),
        };
        let user = user
            .map(|user| {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                Ok::<_, StoreError>((decoded(name)?, decoded(password)?))
            })
            .transpose()?;
        if hosts.is_empty() {
            return Err(invalid(
                "a Kafka URL names at least one broker: `kafka://HOST:PORT`",
            ));
        }
        let bootstrap: Vec<String> = hosts.split(',').map(with_port).collect::<Result<_, _>>()?;
        let mut parsed = Url {
            bootstrap: bootstrap.join(","),
            user,
            name: name.map(decoded).transpose()?,
            tls: None,
            sasl: None,
            ca: None,
            client_id: None,
            store: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match (key, value.as_str()) {
                ("tls", "true") => parsed.tls = Some(true),
                ("tls", "false") => parsed.tls = Some(false),
                ("sasl", "plain" | "scram-sha-256" | "scram-sha-512") => parsed.sasl = Some(value),
                ("tls", _) => return Err(invalid("`tls` of a Kafka URL is `true` or `false`")),
                ("sasl", _) => {
                    return Err(invalid(
                        "`sasl` of a Kafka URL is `plain`, `scram-sha-256` or `scram-sha-512`",
                    ));
                }
                ("ca", _) => parsed.ca = Some(value),
                ("client_id", _) => parsed.client_id = Some(value),
                _ if parsed.name.is_some() && Url::is_of_store(key) => {
                    parsed.store.push((key.to_owned(), value));
                }
                _ if Url::is_of_store(key) => {
                    return Err(invalid(format!(
                        "`{key}` is a setting of a store, and the URL does not name the topic of \
                         one: `kafka://HOST:PORT/NAME?local=DIR`"
                    )));
                }
                _ => {
                    // Not the value: it may be a secret.
                    return Err(invalid(format!(
                        "`{key}` is no setting of a Kafka URL; there are tls=true, \
                         sasl=plain|scram-sha-256|scram-sha-512, ca=FILE and client_id=NAME, with \
                         the name of a store those of a store, and \
                         `Kafka::connect_with` takes every setting of librdkafka"
                    )));
                }
            }
        }
        if parsed.ca.is_some() && parsed.tls != Some(true) {
            return Err(invalid(
                "`ca` of a Kafka URL is for brokers that speak TLS, and the URL does not ask for \
                 it: add `tls=true`, or leave out `ca`",
            ));
        }
        if parsed.user.is_some() && parsed.sasl.is_none() {
            parsed.sasl = Some("scram-sha-512".to_owned());
        }
        Ok(parsed)
    }

    /// Whether this is a setting of a store.
    pub(crate) fn is_of_store(key: &str) -> bool {
        OF_STORE.contains(&key)
    }

    /// The settings that only a store understands, in their order.
    pub(crate) fn of_store(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.store.iter();
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Where the local copy of a store is.
    #[cfg(feature = "store")]
    pub(crate) fn local(&self) -> Option<&str> {
        self.of_store()
            .find(|(key, _)| *key == "local")
            .map(|(_, value)| value)
    }

    /// The settings of librdkafka that it means.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![("bootstrap.servers", self.bootstrap.clone())];
        let protocol = match (self.tls == Some(true), &self.sasl) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        settings.push(("security.protocol", protocol.to_owned()));
        if let Some(mechanism) = &self.sasl {
            settings.push(("sasl.mechanisms", mechanism.to_uppercase()));
        }
        if let Some((user, password)) = &self.user {
            settings.push(("sasl.username", user.clone()));
            settings.push(("sasl.password", password.clone()));
        }
        if let Some(ca) = &self.ca {
            settings.push(("ssl.ca.location", ca.clone()));
        }
        let client_id = self.client_id.as_deref().unwrap_or("annals");
        settings.push(("client.id", client_id.to_owned()));
        settings
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }

    /// The URL without user and password, for messages.
    pub(crate) fn shown(&self) -> String {
        match &self.user {
            Some(_) => format!("kafka://…@{}", self.bootstrap),
            None => format!("kafka://{}", self.bootstrap),
        }
    }
}

/// Whether the name of a setting has an `@`: it is the rest of a password that has a `?`.
fn query_has_user(query: &str) -> bool {
    let mut keys = query.split('&').map(|pair| pair.split('=').next());
    keys.any(|key| key.is_some_and(|key| key.contains('@')))
}

/// `%41` is `A`.
fn decoded(text: &str) -> Result<String, StoreError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => {
                return Err(invalid(
                    "a `%` in a Kafka URL is followed by two hex digits",
                ));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid("a part of a Kafka URL is not UTF-8"))
}

/// A broker with its port.
fn with_port(host: &str) -> Result<String, StoreError> {
    if host.is_empty() {
        return Err(invalid(
            "a Kafka URL names a broker before and after each comma: `kafka://HOST:PORT,HOST:PORT`",
        ));
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            if name.is_empty() || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                // Not the port: it may be a password whose `@` is missing.
                return Err(invalid(format!(
                    "the port of broker `{name}` in a Kafka URL is a number from 1 to 65535"
                )));
            }
            Ok(host.to_owned())
        }
        Some((_, port)) if port.parse::<u16>().is_ok() => Ok(host.to_owned()),
        _ => Ok(format!("{host}:{PORT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &[(&str, &str)]) {
        let settings = Url::parse(url).unwrap().settings();
        for (key, value) in expected {
            let found = settings.iter().find(|(found, _)| found == key);
            assert_eq!(
                found.map(|(_, value)| value.as_str()),
                Some(*value),
                "{url}: {key}"
            );
        }
    }

    #[test]
    fn a_url_becomes_the_settings_of_the_client() {
        check(
            "kafka://a",
            &[
                ("bootstrap.servers", "a:9092"),
                ("security.protocol", "plaintext"),
            ],
        );
        check("kafka://a:1,b:2/bank", &[("bootstrap.servers", "a:1,b:2")]);
        let six = "[::1]:9092,[::1]:65535";
        check("kafka://[::1],[::1]:65535", &[("bootstrap.servers", six)]);
        check(
            "kafka://me:p%40ss@a:1?tls=true&ca=/etc/ca.pem&client_id=shop",
            &[
                ("security.protocol", "sasl_ssl"),
                ("sasl.mechanisms", "SCRAM-SHA-512"),
                ("sasl.username", "me"),
                ("sasl.password", "p@ss"),
                ("ssl.ca.location", "/etc/ca.pem"),
                ("client.id", "shop"),
            ],
        );
        check("kafka://a?tls=true", &[("security.protocol", "ssl")]);
        assert_eq!(
            Url::parse("kafka://a/bank").unwrap().name.as_deref(),
            Some("bank")
        );
    }

    #[test]
    fn a_url_that_says_nothing_useful_is_refused() {
        for (url, said) in [
            ("http://a", "begins with"),
            ("kafka://", "at least one broker"),
            ("kafka://a?tsl=true", "`tsl` is no setting"),
            ("kafka://a?tls=yes", "is `true` or `false`"),
            ("kafka://me:pass@a?ca=/etc/ca.pem", "add `tls=true`"),
            ("kafka://a?ca=/etc/ca.pem&tls=false", "add `tls=true`"),
            ("kafka://a?local=l", "does not name the topic"),
            ("kafka://a?sasl=gssapi", "`scram-sha-256` or"),
            ("kafka://u:%4@a", "two hex digits"),
            (
                "kafka://127.0.0.1:99999",
                "broker `127.0.0.1` in a Kafka URL is a number from 1",
            ),
            ("kafka://a:0", "a number from 1 to 65535"),
            ("kafka://a:", "a number from 1 to 65535"),
            ("kafka://[::1]:65536", "a number from 1 to 65535"),
            ("kafka://a:1,", "before and after each comma"),
            ("kafka://,a:1", "before and after each comma"),
            ("kafka://a,,b", "before and after each comma"),
        ] {
            let error = Url::parse(url).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = Url::parse("kafka://me:secret@a:1").unwrap();
        assert!(!format!("{url:?}").contains("secret"));
        for url in [
            "kafka://a?sasl.password=secret",
            "kafka://a?password=secret",
            "kafka://a?tls=secret",
            "kafka://me:secret/word@a:1/bank",
            "kafka://me:secret?word@a:1/bank",
            "kafka://me:secret?word=secret@a",
            "kafka://me:secret%4@a",
            "kafka:me:secret@a",
        ] {
            if let Ok(url) = Url::parse(url) {
                panic!("{url:?} is taken for a URL");
            }
            let error = Url::parse(url).unwrap_err().to_string();
            assert!(
                !error.contains("secret") && !error.contains("word@"),
                "{error}"
            );
        }
    }
}
