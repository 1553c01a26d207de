//! Numbers that look random and are the same in every run.

/// A sequence from a seed (splitmix64).
///
/// ```
/// use annals_benches::seed::Seed;
///
/// assert_eq!(Seed::new(7).below(100), Seed::new(7).below(100));
/// ```
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Seed {
        Seed(seed)
    }

    /// The next number, from 0 up to but not with `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
