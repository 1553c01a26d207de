//! What goes wrong with a file says so, names the file, and loses nothing.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use annals_core::{
    Append, AppendError, Appended, EventId, EventStore, Failure, Log, NewEvent, Partition,
    Position, ReadLog, StoreError, StreamId,
};
use annals_sqlite::{Options, SqliteStore, rusqlite};
use tempfile::TempDir;

/// Where the process that a test starts finds its file, and what is being tried.
const FILE: &str = "ANNALS_FAULT_FILE";

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            directory: TempDir::new().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("log.db")
    }

    fn options(&self) -> Options {
        Options::file(self.file())
    }

    async fn open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_with(self.options()).await
    }

    /// A closed log of so many events.
    async fn with_events(count: u64) -> Place {
        let place = Place::new();
        let store = place.open().await.unwrap();
        for n in 0..count {
            append(&store, n, 2_000).await.unwrap();
        }
        place
    }
}

async fn append(store: &SqliteStore, n: u64, bytes: usize) -> Result<Appended, AppendError> {
    let id = EventId::from_uuid(format!("00000000-0000-7000-8000-{n:012}").parse().unwrap());
    let event = NewEvent::new("fault.tried", "bytes", vec![b'x'; bytes]).id(id);
    store
        .append(Append::new(StreamId::new("fault-1").unwrap(), [event]))
        .await
}

async fn head(store: &SqliteStore) -> u64 {
    store.head(Partition(0)).await.unwrap().visible.get()
}

#[track_caller]
fn refused(opened: Result<SqliteStore, StoreError>, failure: Failure, said: &[&str]) {
    let error = opened.expect_err("it opened");
    assert_eq!(
        error.failure(),
        failure,
        "{error}: {:?}",
        std::error::Error::source(&error)
    );
    for word in said {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_left_alone() {
    let place = Place::new();
    let text = "this is a letter to my aunt, and it is long enough to have a header ".repeat(4);
    std::fs::write(place.file(), &text).unwrap();
    refused(
        place.open().await,
        Failure::Corrupt,
        &["log.db", "not a SQLite database"],
    );
    assert_eq!(std::fs::read_to_string(place.file()).unwrap(), text);
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_refused() {
    let place = Place::with_events(100).await;
    let file = OpenOptions::new().write(true).open(place.file()).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2 / 4_096 * 4_096)
        .unwrap();
    refused(place.open().await, Failure::Corrupt, &["log.db", "damaged"]);
}

#[tokio::test]
async fn a_damaged_page_is_noticed_when_it_is_read() {
    let place = Place::with_events(200).await;
    let backup = place.file().with_extension("backup");
    std::fs::copy(place.file(), &backup).unwrap();
    let mut file = OpenOptions::new().write(true).open(place.file()).unwrap();
    let length = file.metadata().unwrap().len();
    // The pages of the events, not those of the tables' definitions.
    for page in 24..length / 4_096 {
        file.seek(SeekFrom::Start(page * 4_096)).unwrap();
        file.write_all(&[0xa5; 64]).unwrap();
    }
    drop(file);
    let found = match place.open().await {
        Ok(store) => store
            .read(ReadLog::after(Position::START))
            .await
            .map(|page| page.events.len()),
        Err(error) => Err(error),
    };
    let error = found.expect_err("nothing was noticed");
    assert_eq!(error.failure(), Failure::Corrupt, "{error}");
    assert!(error.to_string().contains("log.db"), "{error}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", place.file().display()));
    }
    std::fs::rename(backup, place.file()).unwrap();
    assert_eq!(head(&place.open().await.unwrap()).await, 200);
}

#[tokio::test]
async fn a_missing_file_is_made_unless_it_must_exist() {
    let place = Place::new();
    for options in [place.options().existing(), place.options().read_only()] {
        refused(
            SqliteStore::open_with(options).await,
            Failure::Unavailable,
            &["log.db"],
        );
    }
    assert!(!place.file().exists());
    let lost = Options::file(place.directory.path().join("no/such/directory/log.db"));
    refused(
        SqliteStore::open_with(lost).await,
        Failure::Unavailable,
        &["no/such/directory/log.db"],
    );
    assert!(place.open().await.is_ok());
}

#[tokio::test]
async fn a_store_without_room_refuses_then_goes_on() {
    let place = Place::new();
    let store = SqliteStore::open_with(place.options().file_bytes_max(512 << 10))
        .await
        .unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match append(&store, acknowledged, 20_000).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 5, "{acknowledged}");
    assert!(
        matches!(&error, AppendError::Store(error) if error.failure() == Failure::Full),
        "{error:?}"
    );
    assert!(error.to_string().contains("log.db"), "{error}");
    assert!(
        error.to_string().contains("make room, then retry"),
        "{error}"
    );
    assert_eq!(
        head(&store).await,
        acknowledged,
        "nothing is lost, and nothing of the refused one is there"
    );
    // Smaller ones may still fit, the same store is usable, and the position is the next one.
    let small = append(&store, acknowledged, 10).await.unwrap();
    assert_eq!(small.last().position.get(), acknowledged + 1);
    drop(store);
    let store = place.open().await.unwrap();
    assert_eq!(
        append(&store, acknowledged + 1, 20_000)
            .await
            .unwrap()
            .last()
            .position
            .get(),
        acknowledged + 2
    );
}

#[tokio::test]
async fn an_append_without_room_does_not_fail_its_neighbours() {
    let place = Place::new();
    let store = SqliteStore::open_with(place.options().file_bytes_max(1 << 20))
        .await
        .unwrap();
    let is_large = |n: u64| n.is_multiple_of(8);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let store = store.clone();
        tasks.spawn(async move {
            (
                n,
                append(&store, n, if is_large(n) { 2 << 20 } else { 100 }).await,
            )
        });
    }
    let mut written = 0;
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            (n, Ok(_)) if !is_large(n) => written += 1,
            (n, Err(AppendError::Store(error))) if is_large(n) => {
                assert_eq!(error.failure(), Failure::Full);
            }
            (n, other) => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!((written, head(&store).await), (56, 56));
}

#[tokio::test]
async fn a_store_opened_read_only_reads_and_refuses_to_write() {
    let place = Place::with_events(3).await;
    let store = SqliteStore::open_with(place.options().read_only())
        .await
        .unwrap();
    assert_eq!(head(&store).await, 3);
    let error = append(&store, 9, 10).await.unwrap_err();
    assert!(
        matches!(&error, AppendError::Store(error) if error.failure() == Failure::ReadOnly),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("open it without `mode=ro`"),
        "{error}"
    );
    // What another process writes meanwhile is seen.
    let mut hint = store.hint();
    let writer = place.open().await.unwrap();
    append(&writer, 9, 10).await.unwrap();
    hint.wait(Duration::from_secs(30)).await;
    assert_eq!(head(&store).await, 4);
}

/// Runs one of the ignored tests below in a process of its own, and says whether it went well.
fn in_another_process(test: &str, file: &Path, prepare: impl FnOnce(&mut Command)) {
    let mut command = Command::new("sh");
    // A write beyond the limit fails instead of ending the process.
    command.args([
        "-c",
        "trap '' XFSZ; ulimit -f ${FILE_BLOCKS:-unlimited}; exec \"$0\" \"$@\"",
    ]);
    command
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(FILE, file);
    prepare(&mut command);
    let out = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn a_file_without_permission_to_write_is_refused() {
    let place = Place::with_events(3).await;
    std::fs::set_permissions(place.file(), std::fs::Permissions::from_mode(0o444)).unwrap();
    std::fs::set_permissions(
        place.directory.path(),
        std::fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    in_another_process("cannot_write_the_file", &place.file(), |command| {
        // To root every file can be written, so another user tries.
        let me = std::fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me));
        if me.is_ok_and(|uid| uid == 0) {
            command.uid(65_534);
        }
    });
}

#[tokio::test]
#[ignore = "it is the process that another test starts"]
async fn cannot_write_the_file() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    refused(
        SqliteStore::open(&format!("sqlite:{file}")).await,
        Failure::ReadOnly,
        &["log.db", "may not be written; open it read-only"],
    );
    let read_only = Options::file(&file).read_only();
    assert_eq!(
        head(&SqliteStore::open_with(read_only).await.unwrap()).await,
        3
    );
}

#[tokio::test]
async fn a_medium_that_fails_closes_the_store_and_loses_nothing() {
    let place = Place::with_events(3).await;
    in_another_process("meets_a_failing_medium", &place.file(), |command| {
        // Blocks of 512 bytes.
        command.env("FILE_BLOCKS", "400");
    });
    // What was acknowledged before is there; opened again, the store goes on.
    let store = place.open().await.unwrap();
    let acknowledged: u64 = std::fs::read_to_string(place.file().with_extension("acknowledged"))
        .unwrap()
        .parse()
        .unwrap();
    let found = head(&store).await;
    assert!(
        found == acknowledged || found == acknowledged + 1,
        "{acknowledged} acknowledged, {found} there"
    );
    let again = append(&store, acknowledged, 3_000).await.unwrap();
    assert_eq!(again.last().position.get(), acknowledged + 1);
    assert_eq!(again.was_repeated(), found == acknowledged + 1);
}

#[tokio::test]
#[ignore = "it is the process that another test starts"]
async fn meets_a_failing_medium() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    let store = SqliteStore::open(&format!("sqlite:{file}")).await.unwrap();
    let mut acknowledged = 3;
    let error = loop {
        match append(&store, acknowledged, 3_000).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    std::fs::write(
        Path::new(&file).with_extension("acknowledged"),
        acknowledged.to_string(),
    )
    .unwrap();
    assert!(acknowledged > 10, "{acknowledged}");
    let cause = match &error {
        AppendError::Unknown(cause) | AppendError::Store(cause) => cause,
        other => panic!("{other:?}"),
    };
    assert_eq!(cause.failure(), Failure::Closed, "{error:?}");
    let says = "the store is closed, open it again";
    assert!(cause.to_string().contains(says), "{cause}");
    // Nothing more is taken, and nothing is read that may not be there.
    let refused = append(&store, 99, 1).await.unwrap_err();
    assert!(
        matches!(&refused, AppendError::Store(error) if error.failure() == Failure::Closed),
        "{refused:?}"
    );
    assert_eq!(
        store.head(Partition(0)).await.unwrap_err().failure(),
        Failure::Closed
    );
}

#[tokio::test]
async fn a_locked_file_is_unavailable_after_the_timeout() {
    let place = Place::new();
    let store = SqliteStore::open_with(place.options().busy_timeout(Duration::from_millis(20)))
        .await
        .unwrap();
    let other = rusqlite::Connection::open(place.file()).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let error = append(&store, 1, 10).await.unwrap_err();
    assert!(
        matches!(&error, AppendError::Store(error) if error.failure() == Failure::Unavailable),
        "{error:?}"
    );
    assert!(error.to_string().contains("log.db"), "{error}");
    // Readers do not wait for it, and the writer goes on afterwards.
    assert_eq!(head(&store).await, 0);
    other.execute_batch("rollback").unwrap();
    assert_eq!(
        append(&store, 1, 10).await.unwrap().last().position.get(),
        1
    );
}

#[tokio::test]
async fn a_relative_path_is_taken_literally() {
    let place = Place::new();
    in_another_process(
        "opens_a_path_that_looks_like_a_uri",
        &place.file(),
        |command| {
            command.current_dir(place.directory.path());
        },
    );
    for name in ["file:x.db?mode=memory", ":memory:"] {
        assert!(place.directory.path().join(name).is_file(), "{name}");
    }
}

#[tokio::test]
#[ignore = "it is the process that another test starts"]
async fn opens_a_path_that_looks_like_a_uri() {
    if std::env::var(FILE).is_err() {
        return;
    };
    for name in ["file:x.db?mode=memory", ":memory:"] {
        let store = SqliteStore::open_with(Options::file(name)).await.unwrap();
        append(&store, 1, 10).await.unwrap();
        // Connections that are opened later find the same file.
        let before = std::env::current_dir().unwrap();
        std::env::set_current_dir("/").unwrap();
        assert_eq!(head(&store).await, 1);
        std::env::set_current_dir(before).unwrap();
    }
}

#[tokio::test]
async fn reading_in_a_directory_without_rights_gives_the_reason() {
    let place = Place::with_events(3).await;
    for (path, mode) in [
        (place.file(), 0o444),
        (place.directory.path().into(), 0o555),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    in_another_process("cannot_make_the_journal", &place.file(), |command| {
        let me = std::fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me));
        if me.is_ok_and(|uid| uid == 0) {
            command.uid(65_534);
        }
    });
    let writable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.directory.path(), writable).unwrap();
}

#[tokio::test]
#[ignore = "it is the process that another test starts"]
async fn cannot_make_the_journal() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    refused(
        SqliteStore::open(&format!("sqlite:{file}?mode=ro")).await,
        Failure::ReadOnly,
        &["log.db", "write in the directory"],
    );
}
