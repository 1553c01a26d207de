//! Where read models live: keyed rows in generations, their history, dead letters and checkpoints.
//!
//! Rows are bytes here; what they mean is decided by the projections. A view store may be in
//! another database than the log.

mod dead_letters;
mod generations;
mod rows;

pub use dead_letters::DeadLetterStore;
pub use generations::{GenerationState, GenerationStore};
pub use rows::{PastRow, ReadRows, RowPlace, RowStore, RowsBy, RowsPage};

/// A place for read models.
///
/// - **One transaction.** Rows, history, dead letters and the checkpoint change together, or
///   not at all.
/// - **Fenced.** A commit under an old epoch, or from another checkpoint,
///   changes nothing.
/// - **Complete.** Readers see a generation only once it was switched to
///   ([`live_generation`](GenerationStore::live_generation)). One that is dropped under their hands
///   says so, and never looks empty.
/// - **Bytewise.** Keys, entries and names are any text, compared byte by byte.
/// - **Bounded.** A page of rows ends at its limit or after
///   [`PAGE_BYTES_MAX`](crate::PAGE_BYTES_MAX) bytes of values.
///
/// ```
/// use std::time::Duration;
///
/// use annals_core::{
///     Acquired, Checkpoint, GenerationSpec, GenerationStore, Leases, Log, MemoryStore, Partition,
///     Position, ReadRows, RowChange, RowStore, RowsBy, ViewCommit,
/// };
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let generation = store.begin_generation(GenerationSpec::new("balances", 1, store.id())).await?;
/// let (name, ttl) = (generation.lease_name(0), Duration::from_secs(10));
/// let asked = store.acquire_lease(&name, "worker-a", ttl).await?;
/// let Acquired::Granted(lease) = asked else { panic!("another worker holds it") };
///
/// let to = Checkpoint { position: Position::new(1), ..Checkpoint::start(0, Partition(0)) };
/// let mut step = ViewCommit::new(generation.id, lease, Position::START, to);
/// step.rows.push(RowChange { key: "alice".into(), value: Some("5".into()), indexed: Vec::new() });
/// store.commit_view(step).await?;
///
/// let alice = RowsBy::Keys(vec!["alice".into()]);
/// let page = store.read_rows(ReadRows::of(generation.id, alice)).await?;
/// assert_eq!(page.rows[0].value, "5");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub trait ViewStore: GenerationStore + RowStore + DeadLetterStore {}

impl<T: GenerationStore + RowStore + DeadLetterStore> ViewStore for T {}
