//! Where the accounts are kept.

use std::path::Path;
use std::sync::Arc;

use annals::StoreError;
use annals::prelude::*;
use annals::read_model::ViewStore;
use annals::sqlite::SqliteStore;

use crate::arguments;

/// The same for every command, unless `--store` says otherwise.
pub(crate) const DEFAULT: &str = "sqlite:bank.db";

/// Opens a store that must be there: asking for balances makes no empty file.
pub(crate) async fn open_existing(url: &str) -> Result<Annals, StoreError> {
    if url.starts_with("sqlite:") && !url.contains('?') && url != "sqlite::memory:" {
        return Annals::open(&format!("{url}?mode=rw")).await;
    }
    // Who asks takes no partitions from those who record.
    if url.starts_with("kafka:") && !url.contains("owns=") {
        return Annals::open(&format!("{url}&owns=none")).await;
    }
    Annals::open(url).await
}

/// Where the read models are, when the store keeps none or another place is named.
pub(crate) async fn views_of(
    store: &arguments::Store,
) -> Result<Option<Arc<dyn ViewStore>>, StoreError> {
    let url = match (&store.views, local_copy(&store.url)) {
        (Some(url), _) => url.clone(),
        (None, Some(local)) => format!("sqlite:{local}/views.db"),
        (None, None) => return Ok(None),
    };
    #[cfg(feature = "postgres")]
    if url.starts_with("postgres") {
        let views = annals::postgres::PostgresStore::connect(&url).await?;
        return Ok(Some(Arc::new(views)));
    }
    Ok(Some(Arc::new(SqliteStore::open(&url).await?)))
}

/// The folder of the local copy of a topic.
fn local_copy(url: &str) -> Option<&str> {
    let settings = url.strip_prefix("kafka:")?.split_once('?')?.1;
    let mut pairs = settings.split('&');
    pairs.find_map(|pair| pair.strip_prefix("local="))
}

/// The URL as it is printed: without user and password.
pub(crate) fn shown(url: &str) -> String {
    match url
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)))
    {
        Some((scheme, place)) => format!("{scheme}://{place}"),
        None => url.to_owned(),
    }
}

/// A file for a story, beside those of earlier ones: `bank-story.db`, `bank-story-2.db` …
pub(crate) fn fresh_file(directory: &Path) -> String {
    let names = (1..).map(|number| match number {
        1 => "bank-story.db".to_owned(),
        number => format!("bank-story-{number}.db"),
    });
    let mut free = names.filter(|name| !directory.join(name).exists());
    free.next().expect("there are more numbers than files")
}
