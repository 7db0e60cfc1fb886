//! The product that [`crate::matmul`] is made of: panels of the right operand packed once and shared
//! by all threads, the left operand read where it stands (or packed by each task, where it is a
//! transpose), sums of a tile held in registers.
//!
//! An element is summed over ascending `k` by fused multiply-adds, in blocks of [`DEPTH`] whose sums
//! are added in order: the same bits for every width of registers, number of threads, and shape
//! around it, and the same as crate `gemm` gives when it is called block by block.

use std::cell::Cell;

use pulp::{Arch, Simd, WithSimd};

use crate::parallel::{Shared, for_each};

/// Inner size of one block, at most.
pub(crate) const DEPTH: usize = 512;

/// Where the blocks of inner size `k` begin and how long they are. None but the only one has a length of 1 or 2,
/// which the crate adds up otherwise.
pub(crate) fn blocks(k: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut depth = 0;
    std::iter::from_fn(move || {
        let rest = k - depth;
        let inner = if rest == DEPTH + 1 || rest == DEPTH + 2 { DEPTH - 4 } else { rest.min(DEPTH) };
        let first = depth;
        depth += inner;
        (inner > 0).then_some((first, inner))
    })
}
/// Values of the right operand that are packed at a time: 4 MiB of them.
const PACKED: usize = 1 << 20;
/// Values of the packed right operand that a task reads again for each of its tiles: 192 KiB of them.
const GROUP: usize = 48 << 10;
/// Tiles of a task, one below the other.
const TILES: usize = 8;
/// Rows of the largest tile, with registers of sixteen lanes.
const ROWS: usize = 12;
/// Room for one tile's packed rows; no power of two, so that tiles do not crowd the same sets of the cache.
const TILE: usize = ROWS * DEPTH + 16;

/// An operand read through strides, one of which is 1.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

thread_local! {
    /// The packed right operand of the products that this thread begins.
    static RIGHT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// A task's packed left operand.
    static LEFT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Bytes of the packed operands of a product with `n` columns and inner size `k`: shared, and of each thread.
pub(crate) fn scratch_bytes(n: usize, k: usize) -> (usize, usize) {
    let width = width(Widest);
    (4 * k * columns(n, k, width), 4 * TILES * TILE)
}

/// Columns that are packed at a time.
fn columns(n: usize, k: usize, width: usize) -> usize {
    (PACKED / k / width * width).clamp(width, n.next_multiple_of(width))
}

/// Columns of a tile on this machine: two registers.
fn width(registers: impl Registers) -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    registers.run(Width)
}

/// With which registers a job is done; tests have some that their machine need not have.
pub(crate) trait Registers: Copy + Send + Sync {
    fn run<J: WithSimd>(self, job: J) -> J::Output;
}

/// The widest of this machine.
#[derive(Clone, Copy)]
pub(crate) struct Widest;

impl Registers for Widest {
    fn run<J: WithSimd>(self, job: J) -> J::Output {
        Arch::new().dispatch(job)
    }
}

/// `c (+)= a b` for `c` `[m, n]` row-major; operands reach as far as `m`, `n`, `k` say. `after(row, rows)` is called
/// once for every few complete rows, the first of which is `row`, while they are in the cache.
pub(crate) fn product(
    c: &mut [f32],
    a: Operand,
    b: Operand,
    (m, n, k): (usize, usize, usize),
    accumulate: bool,
    after: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    product_with(Widest, c, a, b, (m, n, k), accumulate, after);
}

/// [`product`] with given registers.
pub(crate) fn product_with(
    registers: impl Registers,
    c: &mut [f32],
    a: Operand,
    b: Operand,
    (m, n, k): (usize, usize, usize),
    accumulate: bool,
    after: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    assert!(m > 0 && n > 0 && k > 0 && c.len() == m * n);
    assert!(a.data.len() > (m - 1) * a.row + (k - 1) * a.col);
    assert!(b.data.len() > (k - 1) * b.row + (n - 1) * b.col);
    assert!(a.row == 1 || a.col == 1, "one stride of the left operand is 1");
    let width = width(registers);
    if n > m && a.col == 1 {
        // Each task packs the columns that it alone needs: nothing is shared, nobody waits.
        // Shares touch no sum, so their number may depend on the threads'.
        let shares = 2 * rayon::current_num_threads();
        let most = (GROUP / (DEPTH.min(k) * width)).max(1) * width;
        let each = most.min(n.div_ceil(shares).next_multiple_of(width));
        let c = Shared::new(c);
        for_each(n.div_ceil(each), |task| {
            let (first, right) = (task * each, &[][..]);
            let count = each.min(n - first);
            let block = Block { c, n, a, right, row: 0, rows: m, first, count, k, accumulate };
            registers.run(Columns { block, b });
        });
        let height = ROWS * TILES;
        for_each(m.div_ceil(height), |task| {
            let row = task * height;
            // SAFETY: rows do not overlap.
            after(row, unsafe { c.slice(row * n, height.min(m - row) * n) });
        });
        return;
    }
    let step = columns(n, k, width);
    let mut packed = RIGHT.take();
    if packed.len() < k * step {
        packed = bytemuck::zeroed_vec(k * step);
    }
    let tall = if width == 32 { ROWS } else { ROWS / 2 };
    let c = Shared::new(c);
    for first in (0..n).step_by(step) {
        let count = step.min(n - first);
        let panels = count.div_ceil(width);
        let right = Shared::new(&mut packed);
        // Some 64 KiB a task.
        let each = ((1 << 14) / (k * width)).max(1);
        for_each(panels.div_ceil(each), |task| {
            for panel in task * each..panels.min((task + 1) * each) {
                // SAFETY: panels do not overlap.
                let out = unsafe { right.slice(panel * k * width, k * width) };
                let at = first + panel * width;
                pack(out, b, at, width.min(n - at), width, 0, k);
            }
        });
        let height = tall * TILES;
        for_each(m.div_ceil(height), |task| {
            let row = task * height;
            let rows = height.min(m - row);
            registers.run(Block { c, n, a, right: &packed, row, rows, first, count, k, accumulate });
            if first + count == n {
                // SAFETY: tasks own disjoint rows.
                after(row, unsafe { c.slice(row * n, rows * n) });
            }
        });
    }
    RIGHT.set(packed);
}

/// Columns `at..at + count` of `b`, inner indices `depth..depth + k`, as a panel `[k, width]` with zeros beyond.
fn pack(out: &mut [f32], b: Operand, at: usize, count: usize, width: usize, depth: usize, k: usize) {
    if b.col == 1 {
        match width {
            16 if count == width => copy_rows::<16>(out, &b.data[depth * b.row + at..], b.row),
            32 if count == width => copy_rows::<32>(out, &b.data[depth * b.row + at..], b.row),
            _ => {
                for (p, out) in out.chunks_exact_mut(width).enumerate() {
                    out[..count].copy_from_slice(&b.data[(depth + p) * b.row + at..][..count]);
                    out[count..].fill(0.0);
                }
            }
        }
        return;
    }
    assert_eq!(b.row, 1, "one stride of the right operand is 1");
    assert!(count <= width && b.data.len() >= (at + count - 1) * b.col + depth + k && out.len() == k * width);
    // Transposed in squares of four, so that both sides are touched a line at a time.
    let (whole, deep) = (count / 4 * 4, k / 4 * 4);
    for p in (0..deep).step_by(4) {
        for j in (0..whole).step_by(4) {
            // SAFETY: four rows of four values on both sides, within the bounds asserted above.
            unsafe {
                let from = |i: usize| {
                    b.data.as_ptr().add((at + j + i) * b.col + depth + p).cast::<[f32; 4]>().read_unaligned()
                };
                let [x, y, z, w] = [from(0), from(1), from(2), from(3)];
                for i in 0..4 {
                    let to = out.as_mut_ptr().add((p + i) * width + j).cast::<[f32; 4]>();
                    to.write_unaligned([x[i], y[i], z[i], w[i]]);
                }
            }
        }
    }
    for (p, out) in out.chunks_exact_mut(width).enumerate() {
        let done = if p < deep { whole } else { 0 };
        for (j, out) in out.iter_mut().enumerate().skip(done) {
            *out = if j < count { b.data[(at + j) * b.col + depth + p] } else { 0.0 };
        }
    }
}

/// Rows of `W` values that stand `stride` apart, one after the other.
fn copy_rows<const W: usize>(out: &mut [f32], from: &[f32], stride: usize) {
    for (p, out) in out.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        *out = *from[p * stride..].first_chunk::<W>().expect("the operand reaches as far");
    }
}

/// Rows `row..row + rows` of the packed columns `first..first + count`.
struct Block<'a> {
    c: Shared<f32>,
    n: usize,
    a: Operand<'a>,
    right: &'a [f32],
    row: usize,
    rows: usize,
    first: usize,
    count: usize,
    k: usize,
    accumulate: bool,
}

/// A block of all rows, which packs its own columns of the right operand.
struct Columns<'a> {
    block: Block<'a>,
    b: Operand<'a>,
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES == 16 { self.run::<S, ROWS>(simd) } else { self.run::<S, { ROWS / 2 }>(simd) }
    }
}

impl Columns<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self, simd: S) {
        let Columns { block, b } = self;
        let Block { a, rows, first, count, k, .. } = block;
        let width = 2 * S::F32_LANES;
        let mut packed = LEFT.take();
        let room = DEPTH.min(k) * count.next_multiple_of(width);
        if packed.len() < room {
            packed = vec![0.0; room];
        }
        for (depth, inner) in blocks(k) {
            let panels = count.div_ceil(width);
            for (panel, out) in packed.chunks_exact_mut(inner * width).enumerate().take(panels) {
                let columns = width.min(count - panel * width);
                pack(out, b, first + panel * width, columns, width, depth, inner);
            }
            for tile in 0..rows.div_ceil(R) {
                let height = R.min(rows - tile * R);
                let data = &a.data[tile * R * a.row + depth..];
                for (panel, right) in packed.chunks_exact(inner * width).enumerate().take(panels) {
                    let place = (tile * R, height, panel * width, width.min(count - panel * width));
                    block.tile::<S, R, false>(simd, data, right, place, depth > 0);
                }
            }
        }
        LEFT.set(packed);
    }
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES == 16 { self.run::<S, ROWS>(simd) } else { self.run::<S, { ROWS / 2 }>(simd) }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self, simd: S) {
        let Block { a, row, rows, count, k, .. } = self;
        let width = 2 * S::F32_LANES;
        let mut left = LEFT.take();
        if a.col != 1 && left.len() < TILES * TILE {
            left = vec![0.0; TILES * TILE];
        }
        for (depth, inner) in blocks(k) {
            if a.col != 1 {
                // Rows of the block, `R` by `R`, inner index by inner index.
                for p in 0..inner {
                    let from = &a.data[(depth + p) * a.col + row..][..rows];
                    let (whole, rest) = from.as_chunks::<R>();
                    for (tile, from) in whole.iter().enumerate() {
                        left[tile * TILE + p * R..][..R].copy_from_slice(from);
                    }
                    if !rest.is_empty() {
                        let out = &mut left[whole.len() * TILE + p * R..][..R];
                        out[..rest.len()].copy_from_slice(rest);
                        out[rest.len()..].fill(0.0);
                    }
                }
            }
            // A group of panels fits the second-level cache; a tile's rows stay in the first while they pass them.
            let panels = count.div_ceil(width);
            let group = (GROUP / (inner * width)).max(1);
            for first in (0..panels).step_by(group) {
                for tile in 0..rows.div_ceil(R) {
                    let height = R.min(rows - tile * R);
                    for panel in first..panels.min(first + group) {
                        let right = &self.right[(panel * k + depth) * width..][..inner * width];
                        let place = (tile * R, height, panel * width, width.min(count - panel * width));
                        if a.col == 1 {
                            let data = &a.data[(row + tile * R) * a.row + depth..];
                            self.tile::<S, R, false>(simd, data, right, place, depth > 0);
                        } else {
                            self.tile::<S, R, true>(simd, &left[tile * TILE..], right, place, depth > 0);
                        }
                    }
                }
            }
        }
        LEFT.set(left);
    }

    /// One tile of `R` rows and two registers' width over one block of the inner size. `a` is row-major, or packed
    /// `R` values an inner index; `(row, height, column, columns)` is the tile's place in the block.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const PACKED: bool>(
        &self,
        simd: S,
        a: &[f32],
        right: &[f32],
        (row, height, column, columns): (usize, usize, usize, usize),
        later: bool,
    ) {
        let (lanes, width) = (S::F32_LANES, 2 * S::F32_LANES);
        let inner = right.len() / width;
        // Rows beyond the block repeat its last one and are not stored.
        let rows: [usize; R] = std::array::from_fn(|r| r.min(height - 1) * self.a.row);
        let last = if PACKED { inner * R - 1 } else { rows[R - 1] + inner - 1 };
        assert!(a.len() > last);
        let add = self.accumulate || later;
        let mut sums = [[simd.splat_f32s(0.0); 2]; R];
        // SAFETY: the assertion bounds every read of `a`; `right` holds `inner` rows of two registers.
        unsafe {
            let (left, right) = (a.as_ptr(), right.as_ptr());
            for p in 0..inner {
                let b = right.add(p * width);
                let b =
                    [b.cast::<S::f32s>().read_unaligned(), b.add(lanes).cast::<S::f32s>().read_unaligned()];
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = if PACKED { left.add(p * R + r) } else { left.add(p).add(rows[r]) };
                    let x = simd.splat_f32s(*x);
                    sum[0] = simd.mul_add_f32s(x, b[0], sum[0]);
                    sum[1] = simd.mul_add_f32s(x, b[1], sum[1]);
                }
            }
        }
        let at = |r: usize| (self.row + row + r) * self.n + self.first + column;
        if height == R && columns == width {
            for (r, sum) in sums.iter().enumerate() {
                // SAFETY: tasks own disjoint rows of `c`, of which a tile's whole width lies within.
                unsafe {
                    let out = self.c.slice(at(r), width).as_mut_ptr();
                    for (out, sum) in [out, out.add(lanes)].into_iter().zip(sum) {
                        let out = out.cast::<S::f32s>();
                        let value = if add { simd.add_f32s(out.read_unaligned(), *sum) } else { *sum };
                        out.write_unaligned(value);
                    }
                }
            }
            return;
        }
        // All rows, so that the sums above can stay in registers.
        let mut whole = [[0.0f32; 32]; R];
        for (whole, sum) in whole.iter_mut().zip(&sums) {
            for (part, sum) in whole.chunks_exact_mut(lanes).zip(sum) {
                // SAFETY: `lanes` values stand there.
                unsafe { part.as_mut_ptr().cast::<S::f32s>().write_unaligned(*sum) };
            }
        }
        for (r, whole) in whole.iter().enumerate().take(height) {
            // SAFETY: as above.
            let out = unsafe { self.c.slice(at(r), columns) };
            for (out, sum) in out.iter_mut().zip(whole) {
                *out = if add { *out + sum } else { *sum };
            }
        }
    }
}
