//! From a URL to a store: the one place that chooses a backend.

use std::future::Future;

use annals_core::{Annals, Failure, StoreError};

/// Opens a store by its URL. In the [`prelude`](crate::prelude), so that `Annals::open(url)` reads
/// as one.
pub trait Open: Sized {
    /// Opens the store that `url` names; makes it when it is not there yet.
    ///
    /// | URL | store | feature |
    /// |---|---|---|
    /// | `sqlite:bank.db`, `sqlite:/var/lib/bank.db` | a SQLite file, here or there | `sqlite` |
    /// | `sqlite::memory:` | SQLite without a file | `sqlite` |
    /// | `postgres://app@localhost/bank` | a schema of a PostgreSQL database | `postgres` |
    /// | `kafka://localhost/bank?local=./bank` | a topic, with a local copy | `kafka-store` |
    /// | `memory:` | plain memory | |
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] for a URL that names no store of this build; else what the store says,
    /// with the path.
    ///
    /// ```
    /// use annals::prelude::*;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let db = Annals::open("memory:").await?;
    /// # Ok::<_, annals::StoreError>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    fn open(url: &str) -> impl Future<Output = Result<Self, StoreError>> + Send;
}

impl Open for Annals {
    async fn open(url: &str) -> Result<Annals, StoreError> {
        match url.split_once(':') {
            Some(("memory", "")) => Ok(Annals::in_memory()),
            #[cfg(feature = "sqlite")]
            Some(("sqlite", _)) => Ok(Annals::on(std::sync::Arc::new(
                annals_sqlite::SqliteStore::open(url).await?,
            ))),
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", _)) => Ok(Annals::on(std::sync::Arc::new(
                annals_postgres::PostgresStore::connect(url).await?,
            ))),
            #[cfg(not(feature = "postgres"))]
            Some(("postgres" | "postgresql", _)) => Err(is_off(url, "postgres")),
            #[cfg(feature = "kafka-store")]
            Some(("kafka", _)) => Ok(Annals::on(std::sync::Arc::new(
                annals_kafka::KafkaStore::open(url).await?,
            ))),
            #[cfg(not(feature = "kafka-store"))]
            Some(("kafka", _)) => Err(is_off(url, "kafka-store")),
            _ => {
                let why = format!("`{}` names no store of this build: {}", shown(url), known());
                Err(StoreError::new(Failure::Invalid, why))
            }
        }
    }
}

#[cfg(not(all(feature = "postgres", feature = "kafka-store")))]
fn is_off(url: &str, feature: &str) -> StoreError {
    let why = format!(
        "`{}` is for the feature `{feature}` of `annals`, which is off in this build: \
         `cargo … --features {feature}`",
        shown(url)
    );
    StoreError::new(Failure::Invalid, why)
}

/// A URL without user and password, for messages.
fn shown(url: &str) -> String {
    let Some((before, place)) = url.rsplit_once('@') else {
        // What follows a `?` may be a password, too.
        return match url.split_once('?') {
            Some((place, _)) => format!("{place}?…"),
            None => url.to_owned(),
        };
    };
    let place = place.split('?').next().unwrap_or_default();
    match (before.split_once("://"), before.split_once(':')) {
        (Some((scheme, _)), _) => format!("{scheme}://…@{place}"),
        (None, Some((scheme, _))) => format!("{scheme}:…@{place}"),
        (None, None) => format!("…@{place}"),
    }
}

fn known() -> String {
    let mut known = vec!["memory:"];
    if cfg!(feature = "sqlite") {
        known.extend(["sqlite:PATH", "sqlite::memory:"]);
    }
    if cfg!(feature = "postgres") {
        known.push("postgres://USER@HOST/DATABASE");
    }
    if cfg!(feature = "kafka-store") {
        known.push("kafka://HOST/NAME?local=DIR");
    }
    known.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unknown_url_is_named_beside_the_known_ones() {
        for url in ["", "bank.db", "oracle://x", "memory:x"] {
            let error = Annals::open(url).await.unwrap_err();
            assert_eq!(error.failure(), Failure::Invalid);
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("`{url}` names no store of this build: memory:")),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn an_error_about_a_url_keeps_its_password_to_itself() {
        let error = Annals::open("oracle://me:secret@db.example/x")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`oracle://…@db.example/x` names"),
            "{error}"
        );
        let error = Annals::open("oracle:me/secret@db.example").await;
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("`oracle:…@db.example` names"), "{error}");
        for url in [
            "mysql://h/db?password=secret",
            "mysql://u@h/db?password=secret",
        ] {
            let error = Annals::open(url).await.unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[cfg(not(feature = "postgres"))]
    #[tokio::test]
    async fn a_store_not_compiled_in_names_its_feature() {
        let error = Annals::open("postgres://me:secret@db.example/x")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--features postgres") && !error.contains("secret"),
            "{error}"
        );
    }
}
