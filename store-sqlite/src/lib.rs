//! The embedded store of Annals: one SQLite file, no server.
//!
//! [`SqliteStore`] keeps every promise of [`annals_core::Store`], with one partition: one total
//! order. Appends are committed in groups by one writer thread and are on the disk when they are
//! answered; reads come in pages from a small pool of connections and neither block the runtime nor
//! wait for the writer.
//!
//! ```
//! use annals_core::{Append, EventStore, Log, NewEvent, ReadLog, Position, StreamId};
//! use annals_sqlite::SqliteStore;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = SqliteStore::open("sqlite::memory:").await?;
//! let event = NewEvent::json("account.opened", br#"{"owner":"Ada"}"#.as_slice());
//! store.append(Append::new(StreamId::new("account-ada")?, [event])).await?;
//!
//! let page = store.read(ReadLog::after(Position::START)).await?;
//! assert_eq!(&*page.events[0].event_type, "account.opened");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! With the `sqlite3` shell, `select * from annals_readable_events` shows the log, and
//! `annals_readable_streams` the streams. All names in the file begin with `annals_`, so an
//! application can keep its own tables beside them.

mod append_in;
mod change;
mod conflict;
mod connection;
mod contract;
mod error;
mod identity;
mod job;
mod known;
mod options;
mod page;
mod positions;
mod query_plan;
mod range;
mod reader;
mod replica;
mod request;
mod row;
mod schema;
mod snapshot;
mod statements;
mod store;
mod stream_cache;
mod streams;
mod views;
mod watcher;
mod write_tx;
mod writer;
mod writer_loop;

pub use append_in::AppendTransaction;
pub use options::Options;
pub use replica::{ReplicaAppend, ReplicaEntry, ReplicaPlace, Upstream};
pub use rusqlite;
pub use store::SqliteStore;
