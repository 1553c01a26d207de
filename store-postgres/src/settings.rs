//! Settings of the server that would break a promise: what would not survive a power cut, and an
//! encoding that cannot hold every name.

use sqlx::Error;
use sqlx::postgres::PgConnection;

use crate::database::Database;
use crate::statements as sql;

/// Refuses a server that cannot store every name, and one that would lose what it acknowledged when
/// that `is_durable`; names the setting.
pub(crate) async fn check(
    database: &Database,
    connection: &mut PgConnection,
    is_durable: bool,
) -> Result<(), Error> {
    let settings: (String, String, String, String) = sqlx::query_as(database.text(sql::SETTINGS))
        .fetch_one(connection)
        .await?;
    if settings.3 != "UTF8" {
        let what = format!(
            "its encoding is {}, which cannot hold every name; create the database with \
             `encoding 'UTF8'`",
            settings.3
        );
        return Err(Error::Configuration(what.into()));
    }
    if !is_durable {
        return Ok(());
    }
    match weak(&settings.0, &settings.1, &settings.2) {
        None => Ok(()),
        Some(setting) => {
            let what = format!(
                "it has `{setting}`, so a power cut could lose an acknowledged append; change the \
                 setting, or ask for `relaxed_durability`"
            );
            Err(Error::Configuration(what.into()))
        }
    }
}

fn weak(fsync: &str, full_page_writes: &str, synchronous_commit: &str) -> Option<String> {
    if fsync != "on" {
        return Some(format!("fsync={fsync}"));
    }
    if full_page_writes != "on" {
        return Some(format!("full_page_writes={full_page_writes}"));
    }
    (!matches!(synchronous_commit, "on" | "remote_apply"))
        .then(|| format!("synchronous_commit={synchronous_commit}"))
}

#[cfg(test)]
mod tests {
    use super::weak;

    #[test]
    fn what_would_lose_acknowledged_appends_is_named() {
        for (fsync, pages, commit, said) in [
            ("on", "on", "on", None),
            ("on", "on", "remote_apply", None),
            ("off", "on", "on", Some("fsync=off")),
            ("on", "off", "on", Some("full_page_writes=off")),
            ("on", "on", "off", Some("synchronous_commit=off")),
            ("on", "on", "local", Some("synchronous_commit=local")),
            (
                "on",
                "on",
                "remote_write",
                Some("synchronous_commit=remote_write"),
            ),
        ] {
            assert_eq!(weak(fsync, pages, commit).as_deref(), said);
        }
    }
}
