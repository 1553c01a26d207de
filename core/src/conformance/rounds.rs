//! How often a test repeats what it tries.

/// The first number, or the second with `ANNALS_TEST_LONG=1`: what a test repeats in CI, and what
/// it repeats in the long form.
///
/// ```
/// use annals_core::conformance::rounds;
///
/// let rounds = rounds(4, 50);
/// assert!(rounds == 4 || rounds == 50);
/// ```
pub fn rounds(short: u64, long: u64) -> u64 {
    let is_long = std::env::var("ANNALS_TEST_LONG").is_ok_and(|long| long == "1");
    if is_long { long } else { short }
}
