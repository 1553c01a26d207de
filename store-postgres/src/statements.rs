//! Every statement that stands alone, each in a file under `sql/`, where its first line says what it guarantees.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    APPEND = "append";
    ARCHIVED_TAGS = "archived_tags";
    BACKEND = "backend";
    BACKEND_WORKS = "backend_works";
    CHANGE_STREAM = "change_stream";
    CREATE_MIGRATION = "create_migration";
    HAS_SCHEMA = "has_schema";
    HEAD = "head";
    INSERT_LOG = "insert_log";
    INSERT_MIGRATION = "insert_migration";
    ISOLATION = "isolation";
    KINDS = "kinds";
    KNOWN_IDS = "known_ids";
    LOCK_MIGRATIONS = "lock_migrations";
    LOG_BACKWARD = "log_backward";
    LOG_BACKWARD_SMALL = "log_backward_small";
    LOG_FORWARD = "log_forward";
    LOG_FORWARD_SMALL = "log_forward_small";
    LOG_HEAD = "log_head";
    LOG_ID = "log_id";
    MAKE_KIND = "make_kind";
    NOTIFY = "notify";
    PLACES = "places";
    POSITION_AT = "position_at";
    RESOLVE_STREAMS = "resolve_streams";
    SCHEMA_VERSION = "schema_version";
    SETTINGS = "settings";
    STAGE = "stage";
    STREAM = "stream";
    STREAM_BACKWARD = "stream_backward";
    STREAM_FORWARD = "stream_forward";
    STREAM_NAMES = "stream_names";
}
