//! Where the accounts are kept.

use std::path::Path;

use annals::StoreError;
use annals::prelude::*;

/// The same for every command, unless `--store` says otherwise.
pub(crate) const DEFAULT: &str = "sqlite:bank.db";

/// Opens a store that must be there: asking for balances makes no empty file.
pub(crate) async fn open_existing(url: &str) -> Result<Annals, StoreError> {
    if url.starts_with("sqlite:") && !url.contains('?') && url != "sqlite::memory:" {
        return Annals::open(&format!("{url}?mode=rw")).await;
    }
    Annals::open(url).await
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
