//! A span of device memory, as collectives between devices see it.

use std::ops::Range;

use crate::share;

/// What stands in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    Bf16,
    /// 16 bits that are no number: they can be copied and not summed.
    Bits16,
}

impl Element {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::Bits16 => 2,
        }
    }
}

/// `len` values in the memory of the device that this thread's context is for.
#[derive(Debug)]
pub struct DeviceSlice {
    address: u64,
    len: usize,
    element: Element,
}

impl DeviceSlice {
    /// Bytes that a device loads at once: shares are whole packs of them.
    pub const PACK_BYTES: usize = 16;

    /// # Safety
    /// `len` values of `element` stand at `address`, nothing else uses them while this lives, and what was
    /// launched before on another stream than the collective's has ended.
    pub unsafe fn new(address: u64, len: usize, element: Element) -> Self {
        Self { address, len, element }
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn element(&self) -> Element {
        self.element
    }

    /// What of `len` values is rank `rank`'s among `size`: consecutive, in order, whole packs but for the end of
    /// the last, in lengths that differ by one pack. Values of one width are shared alike.
    pub fn share(len: usize, element: Element, rank: usize, size: usize) -> Range<usize> {
        let pack = Self::PACK_BYTES / element.size();
        let packs = share(len.div_ceil(pack), rank, size);
        (packs.start * pack).min(len)..(packs.end * pack).min(len)
    }

    /// `range` of it, in values.
    ///
    /// # Panics
    /// Beyond the end.
    pub(crate) fn part(&self, range: Range<usize>) -> DeviceSlice {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        let address = self.address + (range.start * self.element.size()) as u64;
        Self { address, len: range.len(), element: self.element }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_packs_and_cover_everything_once() {
        for (element, pack) in [(Element::F32, 4), (Element::Bf16, 8), (Element::Bits16, 8)] {
            for len in [0, 1, 7, 8, 72, 1003] {
                for size in [1, 2, 3, 11] {
                    let all: Vec<_> =
                        (0..size).map(|rank| DeviceSlice::share(len, element, rank, size)).collect();
                    assert_eq!((all[0].start, all[size - 1].end), (0, len));
                    assert!(all.windows(2).all(|w| w[0].end == w[1].start));
                    assert!(all.iter().all(|own| own.start.is_multiple_of(pack) || own.start == len));
                    let packs = || all.iter().map(|own| own.len().div_ceil(pack));
                    assert!(packs().max().unwrap() - packs().min().unwrap() <= 1, "{all:?}");
                }
            }
        }
    }

    #[test]
    fn a_part_is_where_its_values_are() {
        // SAFETY: nothing is read there.
        let all = unsafe { DeviceSlice::new(4096, 100, Element::Bits16) };
        let part = all.part(8..20);
        assert_eq!((part.address(), part.len(), part.element()), (4096 + 16, 12, Element::Bits16));
        assert!(all.part(100..100).is_empty());
    }
}
