//! Every statement that runs more than once, each in a file of its own under `sql/`, where its first line says what it guarantees.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    ARCHIVE = "archive";
    ARCHIVED_TAGS = "archived_tags";
    CATEGORY = "category";
    DELETE_EVENT_TAG = "delete_event_tag";
    DELETE_SNAPSHOT = "delete_snapshot";
    EVENT = "event";
    EVERY_BACKWARD = "every_backward";
    EVERY_FORWARD = "every_forward";
    HEAD = "head";
    INSERT_CATEGORY = "insert_category";
    INSERT_DELETION = "insert_deletion";
    INSERT_EVENT = "insert_event";
    INSERT_EVENT_TAG = "insert_event_tag";
    INSERT_KIND = "insert_kind";
    INSERT_STREAM = "insert_stream";
    INSERT_TAG = "insert_tag";
    KIND = "kind";
    KINDS_OF_CATEGORY = "kinds_of_category";
    KINDS_OF_TYPE = "kinds_of_type";
    KIND_BACKWARD = "kind_backward";
    KIND_FORWARD = "kind_forward";
    KIND_NAME = "kind_name";
    KNOWN_ID = "known_id";
    LAST_DELETION = "last_deletion";
    LOG_BACKWARD = "log_backward";
    LOG_FORWARD = "log_forward";
    NEWEST_SNAPSHOT = "newest_snapshot";
    PLACES = "places";
    RECORDED_AT = "recorded_at";
    REVIVE_STREAM = "revive_stream";
    SAVE_SNAPSHOT = "save_snapshot";
    STREAM = "stream";
    STREAMS_BY_PREFIX = "streams_by_prefix";
    STREAM_BACKWARD = "stream_backward";
    STREAM_DELETIONS = "stream_deletions";
    STREAM_FORWARD = "stream_forward";
    STREAM_NAME = "stream_name";
    TAG = "tag";
    TAG_BACKWARD = "tag_backward";
    TAG_FORWARD = "tag_forward";
    UPDATE_STREAM = "update_stream";
    VERSION_BACKWARD = "version_backward";
    VERSION_FORWARD = "version_forward";
}
