//! Random numbers that a seed brings back.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Of a seed and the number of a stream: rounds of one run have one stream each.
    pub fn new(seed: u64, stream: u64) -> Self {
        // Mixed: the state moves on by the same step in every stream, so that neighbours would be one another's future.
        Self(mix(mix(seed) ^ stream))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `n` of 100 cases.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// One of the choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

fn mix(n: u64) -> u64 {
    let z = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seed from the clock, for runs that were given none. It is printed, so that the run can be repeated.
pub fn from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 % 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_seed_brings_the_same_numbers_and_streams_differ() {
        let mut numbers = Rng::new(7, 1);
        let first: Vec<u64> = (0..4).map(|_| numbers.next()).collect();
        let mut again = Rng::new(7, 1);
        assert_eq!(first, (0..4).map(|_| again.next()).collect::<Vec<_>>());
        let mut next = Rng::new(7, 2);
        assert!((0..100).all(|_| !first.contains(&next.next())));
    }
}
