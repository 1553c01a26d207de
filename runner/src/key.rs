//! Slots by keys.

use annals_core::Partition;

/// The virtual nodes that keys are spread over; slots divide them, so that keys can move between
/// slots without being hashed once more.
pub const NODES: u64 = 256;

/// The slot of `slots` that a key belongs to.
pub fn slot_of(key: &str, slots: u16) -> u16 {
    let node = u64::from(Partition::of(key, NODES as u32).0);
    (node * u64::from(slots) / NODES) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_share_all_nodes_evenly() {
        for slots in [1_u16, 2, 3, 7, 256] {
            let mut count = vec![0; usize::from(slots)];
            for number in 0..10_000_u64 {
                count[usize::from(slot_of(&number.to_string(), slots))] += 1;
            }
            assert!(
                count.iter().all(|keys| *keys > 0 || slots == 256),
                "{slots}: {count:?}"
            );
        }
    }
}
