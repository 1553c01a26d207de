//! Numbers that look random.

/// Numbers that look random and are the same in every run, for histories that tests draw.
///
/// ```
/// use annals_core::conformance::Dice;
///
/// let (mut one, mut other) = (Dice::new(7), Dice::new(7));
/// assert_eq!(one.roll(6), other.roll(6));
/// assert!(one.roll(6) < 6);
/// ```
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that are named by a seed: those of two seeds roll differently.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`, which is more than 0.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}
