//! The traits of the store underneath, with the fault on the way of each call.

use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::{Call, FaultyStore, StoreFault};
use crate::append::{Append, AppendError, Appended, Limits};
use crate::error::StoreError;
use crate::event::EventId;
use crate::inline::{InlineViews, VersionedRow};
use crate::lease::{Acquired, Lease, LeaseState, Leases};
use crate::position::{Head, Incarnation, LogId, Partition, Position};
use crate::read::{LogPage, ReadLog, ReadQuery, ReadStream, StreamPage};
use crate::snapshot::{FoldId, Snapshot};
use crate::store::{Assignment, EventStore, Found, Hint, Log, SnapshotStore, Store, TaggedStore};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamState};
use crate::{
    Checkpoint, CommitError, DeadLetter, DeadLetterStore, Generation, GenerationId, GenerationSpec,
    GenerationState, GenerationStore, PastRow, ReadRows, RowStore, RowVersion, RowsPage,
    SkipDecision, ViewCommit, ViewStore,
};

/// The traits below are only reached through [`Store`], which gives them when the store underneath
/// has them.
const HAS_IT: &str = "the store underneath has the trait";

impl<T: StoreFault> FaultyStore<T> {
    fn of_events(&self) -> &dyn Store {
        &*self.inner
    }

    fn of_queries(&self) -> &dyn TaggedStore {
        self.inner.tagged().expect(HAS_IT)
    }

    fn of_snapshots(&self) -> &dyn SnapshotStore {
        self.inner.snapshots().expect(HAS_IT)
    }

    fn of_views(&self) -> &dyn ViewStore {
        self.inner.views().expect(HAS_IT)
    }

    fn of_inline_views(&self) -> &dyn InlineViews {
        self.inner.inline_views().expect(HAS_IT)
    }
}

/// A trait of the store: `how Call: method(arguments) -> answer;` for what the fault meets, then
/// the rest as it is.
macro_rules! forward {
    ($trait:ident to $inner:ident {
        $($how:ident $call:ident: $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*
    } $($rest:tt)*) => {
        #[async_trait]
        impl<T: StoreFault> $trait for FaultyStore<T> {
            $(async fn $name(&self, $($arg: $type),*) -> $answer {
                self.$how(Call::$call, self.$inner().$name($($arg),*)).await
            })*
            $($rest)*
        }
    };
}

forward! { EventStore to of_events {
    ask ReadStream: read_stream(read: ReadStream) -> Result<StreamPage, StoreError>;
    ask Find: find(partition: Partition, ids: &[EventId]) -> Result<Vec<Option<Found>>, StoreError>;
    ask StreamState: stream_state(stream: &StreamId) -> Result<StreamState, StoreError>;
}
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let outcome = self.fault.append(self.of_events(), append);
        self.change(Call::Append, outcome).await
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        let outcome = self.fault.change_stream(self.of_events(), change);
        self.change(Call::ChangeStream, outcome).await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

forward! { Log to of_events {
    ask Head: head(partition: Partition) -> Result<Head, StoreError>;
    ask PositionAt:
        position_at(partition: Partition, moment: DateTime<Utc>) -> Result<Position, StoreError>;
    ask BeginsAfter: begins_after(partition: Partition) -> Result<Position, StoreError>;
}
    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        let page = self.fault.read_log(self.of_events(), read);
        self.ask(Call::ReadLog, page).await
    }

    fn id(&self) -> LogId {
        self.inner.id()
    }

    fn incarnation(&self) -> Incarnation {
        self.fault.incarnation(self.inner.incarnation())
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn grown_from(&self) -> Option<u32> {
        self.inner.grown_from()
    }

    fn partition_of(&self, stream: &StreamId) -> Partition {
        self.inner.partition_of(stream)
    }

    fn hint(&self) -> Hint {
        self.fault.hint(self.inner.hint())
    }

    fn assignment(&self) -> Option<watch::Receiver<Assignment>> {
        self.inner.assignment()
    }

    fn stalled(&self, partition: Partition) -> Option<String> {
        self.fault.stalled(self.inner.stalled(partition))
    }
}

forward! { TaggedStore to of_queries {
    ask ReadQuery: read_query(read: ReadQuery) -> Result<LogPage, StoreError>;
} }

forward! { SnapshotStore to of_snapshots {
    ask SaveSnapshot: save_snapshot(snapshot: Snapshot) -> Result<(), StoreError>;
    ask NewestSnapshot: newest_snapshot(stream: &StreamId, fold: &FoldId, at_most: Version)
        -> Result<Option<Snapshot>, StoreError>;
    ask DeleteSnapshot: delete_snapshot(stream: &StreamId, fold: &FoldId, version: Version)
        -> Result<(), StoreError>;
} }

forward! { Leases to of_views {
    ask Lease: acquire_lease(name: &str, owner: &str, ttl: Duration)
        -> Result<Acquired, StoreError>;
    ask RenewLease: renew_lease(lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;
    ask RenewLease: renew_leases(leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError>;
    ask Lease: release_lease(lease: &Lease) -> Result<(), StoreError>;
    ask Lease: leases(prefix: &str) -> Result<Vec<LeaseState>, StoreError>;
} }

forward! { GenerationStore to of_views {
    ask ChangeView: begin_generation(spec: GenerationSpec) -> Result<Generation, StoreError>;
    ask ReadView: generations(view: &str) -> Result<Vec<Generation>, StoreError>;
    ask ReadView: live_generation(view: &str, version: u32)
        -> Result<Option<Generation>, StoreError>;
    ask ReadView: view_names() -> Result<Vec<String>, StoreError>;
    ask ChangeView: switch_to(generation: GenerationId) -> Result<(), CommitError>;
    ask ChangeView: drop_generation(generation: GenerationId) -> Result<(), CommitError>;
    ask ReadView: states(views: &[String]) -> Result<Vec<GenerationState>, StoreError>;
    ask ReadView: checkpoints(generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError>;
} }

type KeyRange = (Bound<String>, Bound<String>);

forward! { RowStore to of_views {
    ask ReadView: read_past(generation: GenerationId, keys: &[String], moment: Position)
        -> Result<Vec<PastRow>, CommitError>;
    ask ReadView:
        past_keys(generation: GenerationId, range: KeyRange, after: Option<&str>, limit: usize)
        -> Result<Vec<String>, CommitError>;
    ask ReadView: row_versions(
        generation: GenerationId, key: &str, between: (Position, Position), limit: usize
    ) -> Result<Vec<RowVersion>, CommitError>;
    ask ReadView: keys_changed_between(
        generation: GenerationId, between: (Position, Position), after: Option<&str>, limit: usize
    ) -> Result<Vec<String>, CommitError>;
    ask ReadView: touched(
        generation: GenerationId, key: &str, after: Position, up_to: Position, limit: usize
    ) -> Result<Vec<Position>, CommitError>;
    ask ChangeView: forget_history(generation: GenerationId, since: Position)
        -> Result<(), CommitError>;
}
    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError> {
        let answer = self.fault.read_rows(self.of_views(), read);
        self.ask(Call::ReadView, answer).await
    }

    async fn read_state(
        &self,
        generation: GenerationId,
        slot: u16,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, CommitError> {
        let of = (generation, slot);
        let answer = self.fault.read_state(self.of_views(), of, after, bytes_max);
        self.ask(Call::ReadView, answer).await
    }

    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError> {
        let outcome = self.fault.commit_view(self.of_views(), commit);
        self.ask(Call::CommitView, outcome).await
    }
}

type DeadLetterPlace<'a> = (&'a str, Partition, Position);

forward! { DeadLetterStore to of_views {
    ask ReadView: dead_letters(
        generation: GenerationId, after: Option<DeadLetterPlace<'_>>, limit: usize
    ) -> Result<Vec<DeadLetter>, CommitError>;
    ask ChangeView: save_skip_decision(skip_decision: SkipDecision) -> Result<(), StoreError>;
    ask ReadView: skip_decisions(view: &str) -> Result<Vec<SkipDecision>, StoreError>;
} }

forward! { InlineViews to of_inline_views {
    ask ReadView: read_versioned(generation: GenerationId, keys: &[String])
        -> Result<Vec<VersionedRow>, CommitError>;
} }

impl<T: StoreFault> Store for FaultyStore<T> {
    fn atomic(&self) -> bool {
        self.inner.atomic()
    }

    fn tagged(&self) -> Option<&dyn TaggedStore> {
        self.inner.tagged().map(|_| self as &dyn TaggedStore)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        self.inner.snapshots().map(|_| self as &dyn SnapshotStore)
    }

    fn views(&self) -> Option<&dyn ViewStore> {
        self.inner.views().map(|_| self as &dyn ViewStore)
    }

    fn inline_views(&self) -> Option<&dyn InlineViews> {
        self.inner.inline_views().map(|_| self as &dyn InlineViews)
    }
}
