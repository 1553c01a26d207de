//! The databases that rows of read models are about, so that two rows differ only in the database.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annals::Store;
use annals::read_model::ViewStore;
use annals_benches::baseline_sqlite::Baseline;
use annals_benches::latency::Latencies;
use annals_benches::live::Live;
use annals_benches::past::{Answers, Questions};
use annals_benches::rate::Rate;
use annals_benches::replay::Fill;
use annals_benches::server::Schema;
use annals_benches::{Outcome, baseline_sqlx};
use annals_postgres::PostgresStore;
use annals_sqlite::{Options, SqliteStore};
use tokio::runtime::Runtime;

/// A database of one's own, Annals in it, and the work of the rows by hand with a bare driver.
pub(super) trait Backend: Sized {
    /// What names of rows end with.
    const NAME: &'static str;
    /// The same where it is compared with a replay.
    const REPLAY: &'static str;
    /// With what the work is done by hand.
    const DRIVER: &'static str;
    /// What a view is built at, without history.
    const REBUILD_PER_SECOND: f64;
    /// Within what an event is seen in a view.
    const SEEN_WITHIN: Duration;

    /// One of its own, with nothing in it; beside others only below another directory.
    fn new(directory: &Path) -> Outcome<Self>;

    /// Annals in it.
    async fn store(&self) -> Outcome<Arc<dyn Store>>;

    /// Read models in it.
    async fn views(&self) -> Outcome<Arc<dyn ViewStore>>;

    /// Puts a log there, for us and for those who read it by hand.
    async fn fill(&self, fill: Fill) -> Outcome<()>;

    /// Appends events, each together with the row that shows it, and selects that, by hand.
    async fn live_by_hand(&self, live: &Live) -> Outcome<Latencies>;

    /// Folds its log into the table of `views` by hand.
    async fn rebuild_by_hand(&self, views: &Self, with_history: bool) -> Outcome<Rate>;

    /// Asks the table of the past that was folded by hand.
    async fn ask_by_hand(&self, questions: &Questions) -> Outcome<Answers>;

    /// Removes what would remain.
    async fn remove(self) -> Outcome<()>;
}

/// Runs it with a database of its own, which is removed afterwards.
pub(super) fn measured<B: Backend, T>(
    runtime: &Runtime,
    directory: &Path,
    work: impl AsyncFnOnce(&B) -> Outcome<T>,
) -> Outcome<T> {
    let backend = B::new(directory)?;
    runtime.block_on(async {
        let done = work(&backend).await;
        backend.remove().await?;
        done
    })
}

/// A file of SQLite; the owner of the directory removes it.
pub(super) struct File(PathBuf);

impl Backend for File {
    const NAME: &'static str = "sqlite";
    const REPLAY: &'static str = "replay";
    const DRIVER: &'static str = "rusqlite";
    const REBUILD_PER_SECOND: f64 = 400_000.0;
    const SEEN_WITHIN: Duration = Duration::from_millis(5);

    fn new(directory: &Path) -> Outcome<File> {
        Ok(File(super::file(directory)))
    }

    async fn store(&self) -> Outcome<Arc<dyn Store>> {
        super::sqlite(&self.0).await
    }

    async fn views(&self) -> Outcome<Arc<dyn ViewStore>> {
        Ok(Arc::new(
            SqliteStore::open_with(Options::file(&self.0)).await?,
        ))
    }

    async fn fill(&self, fill: Fill) -> Outcome<()> {
        super::fill(&self.0, fill).await
    }

    async fn live_by_hand(&self, live: &Live) -> Outcome<Latencies> {
        Baseline::open(&self.0).await?.live(live)
    }

    async fn rebuild_by_hand(&self, views: &File, with_history: bool) -> Outcome<Rate> {
        Baseline::open(&self.0)
            .await?
            .rebuild(&mut Baseline::open(&views.0).await?, with_history)
    }

    async fn ask_by_hand(&self, questions: &Questions) -> Outcome<Answers> {
        Baseline::open(&self.0).await?.ask(questions)
    }

    async fn remove(self) -> Outcome<()> {
        Ok(())
    }
}

impl Backend for Schema {
    const NAME: &'static str = "postgres";
    const REPLAY: &'static str = "postgres-replay";
    const DRIVER: &'static str = "sqlx";
    const REBUILD_PER_SECOND: f64 = 200_000.0;
    const SEEN_WITHIN: Duration = Duration::from_millis(10);

    fn new(_: &Path) -> Outcome<Schema> {
        Schema::new()
    }

    async fn store(&self) -> Outcome<Arc<dyn Store>> {
        self.store().await
    }

    async fn views(&self) -> Outcome<Arc<dyn ViewStore>> {
        Ok(Arc::new(
            PostgresStore::connect_with(self.options()?).await?,
        ))
    }

    async fn fill(&self, fill: Fill) -> Outcome<()> {
        // Test data: it need not survive a power cut.
        let store = PostgresStore::connect_with(self.options()?.relaxed_durability()).await?;
        fill.run(&(Arc::new(store) as Arc<dyn Store>)).await?;
        self.make_baseline_copy().await
    }

    async fn live_by_hand(&self, live: &Live) -> Outcome<Latencies> {
        self.store().await?;
        self.make_baseline().await?;
        baseline_sqlx::live(self, live).await
    }

    async fn rebuild_by_hand(&self, views: &Schema, with_history: bool) -> Outcome<Rate> {
        views.store().await?;
        baseline_sqlx::rebuild(self, views, with_history).await
    }

    async fn ask_by_hand(&self, questions: &Questions) -> Outcome<Answers> {
        baseline_sqlx::ask(self, questions).await
    }

    async fn remove(self) -> Outcome<()> {
        self.drop().await
    }
}
