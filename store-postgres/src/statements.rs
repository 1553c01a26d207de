//! Every statement, each in a file under `sql/`, where its first line says what it guarantees; and
//! the texts of the schema.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    APPEND = "append";
    APPEND_ONE = "append_one";
    APPEND_ONE_THEN_FLUSH = "append_one_then_flush";
    APPEND_THEN_FLUSH = "append_then_flush";
    APPEND_WITH_ROWS = "append_with_rows";
    ARCHIVED_TAGS = "archived_tags";
    BACKEND = "backend";
    BACKEND_WORKS = "backend_works";
    BEGIN_INCARNATION = "begin_incarnation";
    CHANGE_BY_ID = "change_by_id";
    CHANGE_STREAM = "change_stream";
    CREATE_MIGRATION = "create_migration";
    FUNCTIONS_OF_SCHEMA = "function_checksums";
    HAS_SCHEMA = "has_schema";
    HEAD = "head";
    INSERT_LOG = "insert_log";
    INSERT_MIGRATION = "insert_migration";
    ISOLATION = "isolation";
    KINDS = "kinds";
    KINDS_UP_TO = "kinds_up_to";
    KNOWN_IDS = "known_ids";
    LISTENS = "listens";
    LOCK_MIGRATIONS = "lock_migrations";
    LOG_COPY = "log_copy";
    LOG_HEAD = "log_head";
    LOG_ID = "log_id";
    LOG_IDENTITY = "log_identity";
    LOG_IDENTITY_FLUSHED = "log_identity_flushed";
    LOG_PAGE = "log_page";
    LOG_PAGE_KINDS = "log_page_kinds";
    LOG_PAGE_SMALL = "log_page_small";
    NOTIFY = "notify";
    PLACED_BETWEEN = "placed_between";
    POSITION_AT = "position_at";
    REMOVED = "removed";
    RESOLVE_KIND = "resolve_kind";
    RESOLVE_STREAMS = "resolve_streams";
    SAVE_FUNCTION = "save_function";
    SCHEMA_VERSION = "schema_version";
    SETTINGS = "settings";
    STAGE = "stage";
    STAGED_EVENTS = "staged_events";
    STREAM = "stream";
    STREAM_NAMES = "stream_names";
    STREAM_PAGE = "stream_page";
    TRANSACTION_WRITES = "transaction_writes";
}

// Read models, leases and snapshots.
statements! {
    ACQUIRE_LEASE = "views/acquire_lease";
    BEGIN_GENERATION = "views/begin_generation";
    CHECK_STEP = "views/check_step";
    CLEAR = "views/clear";
    CLEAR_GENERATION = "views/clear_generation";
    CLEAR_HISTORY = "views/clear_history";
    COMMIT_INLINE_STEP = "views/commit_inline_step";
    COMMIT_STEP = "views/commit_step";
    COMMIT_STEP_WITH_STATE = "views/commit_step_with_state";
    DEAD_LETTERS = "views/dead_letters";
    DELETE_SNAPSHOT = "views/delete_snapshot";
    DROP_GENERATION = "views/drop_generation";
    DROPPED_GENERATION = "views/dropped_generation";
    DUPLICATE_VERSION = "views/duplicate_version";
    ENSURE_STEP_STREAM_VERSIONS = "views/ensure_step_stream_versions";
    ENSURE_STREAM_VERSIONS = "views/ensure_stream_versions";
    FORGET_HISTORY = "views/forget_history";
    GENERATION = "views/generation";
    GENERATIONS_OF_VIEW = "views/generations_of_view";
    HISTORY_KEYS = "views/history_keys";
    KEYS_CHANGED = "views/keys_changed";
    LEASES = "views/leases";
    RENEW_LEASES = "views/renew_leases";
    STATES = "views/states";
    NEWEST_SNAPSHOT = "views/newest_snapshot";
    RELEASE_LEASE = "views/release_lease";
    RENEW_LEASE = "views/renew_lease";
    ROW_VERSIONS = "views/row_versions";
    ROWS_AS_OF = "views/rows_as_of";
    ROWS_BY_INDEX = "views/rows_by_index";
    ROWS_BY_KEYS = "views/rows_by_keys";
    ROWS_BY_RANGE = "views/rows_by_range";
    SAVE_SKIP_DECISION = "views/save_skip_decision";
    SAVE_SNAPSHOT = "views/save_snapshot";
    SKIP_DECISIONS = "views/skip_decisions";
    SLOT_STATE = "views/slot_state";
    SWITCH_GENERATION = "views/switch_generation";
    TOUCHED = "views/touched";
    TRANSACTION = "views/transaction";
    VERSIONED_ROWS = "views/versioned_rows";
    VIEW_NAMES = "views/view_names";
    VIEW_STATE = "views/view_state";
}

macro_rules! functions {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("sql/functions/", $name, ".sql")))),*]
    };
}

/// What is replaced when its text changes, in an order in which each finds what it needs.
pub(crate) const FUNCTIONS: &[(&str, &str)] = functions! {
    "acquire_lease"
    "append"
    "append_one"
    "append_one_then_flush"
    "append_then_flush"
    "append_with_rows"
    "as_text"
    "begin_incarnation"
    "change_stream"
    "check_step"
    "clear_history"
    "commit_inline_step"
    "commit_step"
    "commit_step_with_state"
    "drop_generation"
    "ensure_step_stream_versions"
    "ensure_stream_versions"
    "first_match"
    "history_keys"
    "keys_changed"
    "lock_log"
    "lock_view"
    "log_head"
    "log_identity"
    "now_micros"
    "number_staged_append"
    "resolve_kind"
    "resolve_streams"
    "switch_generation"
    "view_state"
    "visible_version"
    "write_indexed_rows"
    "write_rows"
    "write_step"
};

/// Views for readers with psql, replaced as functions are, after them.
pub(crate) const READABLE_VIEWS: (&str, &str) =
    ("readable_views", include_str!("sql/readable_views.sql"));
