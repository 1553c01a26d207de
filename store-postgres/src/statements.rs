//! Every statement that stands alone, each in a file under `sql/`, where its first line says what it guarantees.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    CREATE_MIGRATION = "create_migration";
    HAS_SCHEMA = "has_schema";
    INSERT_LOG = "insert_log";
    INSERT_MIGRATION = "insert_migration";
    LOCK_MIGRATIONS = "lock_migrations";
    LOG_ID = "log_id";
    SCHEMA_VERSION = "schema_version";
    SETTINGS = "settings";
}
