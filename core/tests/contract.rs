//! The contract of a store, on the memory store with one partition and with three.

use annals_core::conformance::MemoryFixture;

mod one_partition {
    annals_core::conformance! {
        fixture: super::MemoryFixture::with_partitions(1),
        traits: [atomic, tagged, snapshots, views, inline, shared],
    }
}

mod three_partitions {
    annals_core::conformance! {
        fixture: super::MemoryFixture::with_partitions(3),
        traits: [snapshots, views, inline, shared],
    }
}
