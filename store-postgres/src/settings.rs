//! Settings of the server under which an acknowledged append would not survive a power cut.

use sqlx::Error;
use sqlx::postgres::PgConnection;

use crate::database::Database;
use crate::statements as sql;

/// Refuses a server that would lose what it acknowledged, and names the setting.
pub(crate) async fn check(database: &Database, connection: &mut PgConnection) -> Result<(), Error> {
    let settings: (String, String, String) = sqlx::query_as(database.text(sql::SETTINGS))
        .fetch_one(connection)
        .await?;
    match weak(&settings.0, &settings.1, &settings.2) {
        None => Ok(()),
        Some(setting) => {
            let what = format!(
                "it has `{setting}`, so an acknowledged append could be lost with the power; \
                 change that, or ask for \
                 `relaxed_durability`"
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
