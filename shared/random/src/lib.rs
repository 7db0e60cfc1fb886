//! Counter-based random numbers, keyed by what they are for.
//!
//! No generator state is carried anywhere: a number is a pure function of a key (a seed and the names of what it is
//! for) and a counter, so results do not depend on threads, on batch composition or on where a run was resumed.
//! The function is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), which the
//! GPU kernels compute as well.

/// Philox4x32-10: 128 random bits from a 64-bit key and a 128-bit counter.
pub fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    const M: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const W: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut k = key;
    let mut c = counter;
    for _ in 0..10 {
        let p0 = u64::from(M[0]) * u64::from(c[0]);
        let p1 = u64::from(M[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(W[0]), k[1].wrapping_add(W[1])];
    }
    c
}

/// A 64-bit mix of a key and one more part (the finaliser of SplitMix64 over a running product).
fn mix(state: u64, part: u64) -> u64 {
    let mut z =
        state.rotate_left(23).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ part.wrapping_add(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A key: a seed and the names of what the numbers are for, added one by one.
///
/// ```
/// use cognate_random::Key;
/// let mut stream = Key::new(7).with("mix").with("problem-12").with(3u64).stream();
/// let a = stream.below(10);
/// assert_eq!(a, Key::new(7).with("mix").with("problem-12").with(3u64).stream().below(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

/// What can be part of a key.
pub trait Part {
    fn value(&self) -> u64;
}

impl Part for u64 {
    fn value(&self) -> u64 {
        *self
    }
}

impl Part for u32 {
    fn value(&self) -> u64 {
        u64::from(*self)
    }
}

impl Part for usize {
    fn value(&self) -> u64 {
        *self as u64
    }
}

impl Part for &str {
    /// FNV-1a (64 bits) of the bytes; the mixing happens in the key.
    fn value(&self) -> u64 {
        self.bytes()
            .fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
    }
}

impl Part for &String {
    fn value(&self) -> u64 {
        self.as_str().value()
    }
}

impl Key {
    pub fn new(seed: u64) -> Self {
        Self(mix(0x0063_6F67_6E61_7465, seed))
    }

    /// The key narrowed by one more part. Order matters.
    #[must_use]
    pub fn with(self, part: impl Part) -> Self {
        Self(mix(self.0, part.value()))
    }

    /// The key as Philox takes it, for kernels that draw by themselves.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The `index`-th 64 random bits under this key.
    pub fn bits(self, index: u64) -> u64 {
        let r = philox([self.0 as u32, (self.0 >> 32) as u32], [index as u32, (index >> 32) as u32, 0, 0]);
        u64::from(r[0]) | u64::from(r[1]) << 32
    }

    /// The `index`-th uniform number in [0, 1) under this key, 24 bits, exact in f32.
    pub fn uniform(self, index: u64) -> f32 {
        (self.bits(index) >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    pub fn stream(self) -> Stream {
        Stream { key: self, next: 0 }
    }
}

/// Numbers drawn one after another under one key.
#[derive(Debug, Clone)]
pub struct Stream {
    key: Key,
    next: u64,
}

impl Stream {
    pub fn bits(&mut self) -> u64 {
        let bits = self.key.bits(self.next);
        self.next += 1;
        bits
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in 0..n (Lemire's multiply-shift; the bias is below n / 2^64). Zero for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in low..=high.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        debug_assert!(low <= high);
        low.wrapping_add(self.below((high.wrapping_sub(low) as u64).wrapping_add(1)) as i64)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Standard normal by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let u = 1.0 - self.uniform();
        let v = self.uniform();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// One element, uniformly.
    ///
    /// # Panics
    /// When `items` is empty.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Index drawn with the given non-negative weights; `None` when they sum to zero.
    pub fn weighted(&mut self, weights: &[f64]) -> Option<usize> {
        let total: f64 = weights.iter().sum();
        if total.is_nan() || total <= 0.0 {
            return None;
        }
        let mut x = self.uniform() * total;
        for (i, w) in weights.iter().enumerate() {
            if x < *w {
                return Some(i);
            }
            x -= w;
        }
        weights.iter().rposition(|w| *w > 0.0)
    }

    /// Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers from the Random123 distribution (kat_vectors, philox4x32 10 rounds).
    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox([0, 0], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn keys_differ_in_every_part_and_in_order() {
        let a = Key::new(1).with("x").with(2u64);
        assert_ne!(a.bits(0), a.bits(1));
        assert_ne!(a.bits(0), Key::new(2).with("x").with(2u64).bits(0));
        assert_ne!(a.bits(0), Key::new(1).with(2u64).with("x").bits(0));
    }

    #[test]
    fn draws_are_uniform_enough_to_notice_a_broken_generator() {
        let mut s = Key::new(3).stream();
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[s.below(10) as usize] += 1;
        }
        // Chi-square with 9 degrees of freedom: 27.9 is the 0.1 % point.
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 27.9, "{counts:?}");
        let mean: f64 = (0..100_000).map(|_| s.normal()).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.015, "{mean}");
        let mut items: Vec<u32> = (0..50).collect();
        s.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
        assert_eq!(s.weighted(&[0.0, 0.0]), None);
        assert_eq!(s.weighted(&[0.0, 2.0, 0.0]), Some(1));
    }
}
