//! Every statement that stands alone, each in a file under `sql/`, where its first line says what
//! it guarantees.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    APPEND = "append";
    APPEND_ONE = "append_one";
    APPEND_WITH_ROWS = "append_with_rows";
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
    KINDS_UP_TO = "kinds_up_to";
    KNOWN_IDS = "known_ids";
    LOCK_MIGRATIONS = "lock_migrations";
    LOG_BACKWARD = "log_backward";
    LOG_BACKWARD_SMALL = "log_backward_small";
    LOG_COPIED = "log_copied";
    LOG_FORWARD = "log_forward";
    LOG_FORWARD_KINDS = "log_forward_kinds";
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

// Read models, leases and snapshots.
statements! {
    ACQUIRE_LEASE = "views/acquire_lease";
    BEGIN_GENERATION = "views/begin_generation";
    CHOSEN_BACKWARD = "views/chosen_backward";
    CHOSEN_FORWARD = "views/chosen_forward";
    CLEAR_ENTRIES = "views/clear_entries";
    CLEAR_GENERATION = "views/clear_generation";
    CLEAR_HISTORY = "views/clear_history";
    CLEAR_DEAD_LETTERS = "views/clear_dead_letters";
    CLEAR_ROWS = "views/clear_rows";
    CLEAR_STANDS = "views/clear_stands";
    CLEAR_TOUCHED = "views/clear_touched";
    CLEAR_VERSIONS = "views/clear_versions";
    DELETE_SNAPSHOT = "views/delete_snapshot";
    DROP_GENERATION = "views/drop_generation";
    DROPPED_GENERATION = "views/dropped_generation";
    FORGET_HISTORY = "views/forget_history";
    GENERATION = "views/generation";
    GENERATIONS_OF_VIEW = "views/generations_of_view";
    INDEXED_BACKWARD = "views/indexed_backward";
    INDEXED_FORWARD = "views/indexed_forward";
    SAVE_SKIP_DECISION = "views/save_skip_decision";
    KEYS_CHANGED = "views/keys_changed";
    LEASES = "views/leases";
    LOOK_AT_STEP = "views/look_at_step";
    MAKE_STANDS = "views/make_stands";
    MAKE_STANDS_OF_STEP = "views/make_stands_of_step";
    NEWEST_SNAPSHOT = "views/newest_snapshot";
    DEAD_LETTERS = "views/dead_letters";
    PAST = "views/past";
    PAST_KEYS = "views/past_keys";
    RELEASE_LEASE = "views/release_lease";
    RENEW_LEASE = "views/renew_lease";
    ROW_VERSIONS = "views/row_versions";
    ROWS_BACKWARD = "views/rows_backward";
    ROWS_FORWARD = "views/rows_forward";
    SAVE_SNAPSHOT = "views/save_snapshot";
    STANDING = "views/standing";
    SWITCH_GENERATION = "views/switch_generation";
    TAKE_INLINE_STEP = "views/take_inline_step";
    TAKE_STEP = "views/take_step";
    TAKEN_VERSION = "views/taken_version";
    TOUCHED = "views/touched";
    TRANSACTION = "views/transaction";
    SKIP_DECISIONS = "views/skip_decisions";
    VIEW_NAMES = "views/view_names";
    VIEW_STATE = "views/view_state";
}
