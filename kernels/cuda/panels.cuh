// Tiles for Hopper: D channels in panels of 64, one panel [ROWS, 64] after another, each in the
// 128-byte swizzle, as boxes are copied (tma.cuh) and operands read (wgmma.cuh).
#pragma once
#include "cuda/tile.cuh"
#include "cuda/tma.cuh"
#include "cuda/wgmma.cuh"

constexpr u32 WARP_GROUP = 128;
// Bytes of eight rows of a panel: where the swizzle starts anew.
constexpr u32 ATOM = 1024;

template <u32 ROWS, u32 D> __device__ constexpr u32 tile_bytes() { return ROWS * D * 2; }

// By one thread: starts the copies of ROWS rows from `row`, D channels from `column`, tile_bytes in all.
template <u32 D, u32 ROWS>
__device__ __forceinline__ void fetch_tile(bf16* to, const TensorMap& map, u32 column, u32 row, u64* barrier) {
#pragma unroll
    for (u32 panel = 0; panel < D / 64; ++panel)
#pragma unroll
        for (u32 r = 0; r < ROWS; r += BOX)
            fetch_box(to + (panel * ROWS + r) * 64, map, column + panel * 64, row + r, barrier);
}

// Zeros in the rows from `valid` on, by a whole warp group (part barrier `id` is its own): a tile that
// reaches beyond its document holds the next one's rows, and a weight of 0 does not undo an infinity.
// Two groups may clear the same rows.
template <u32 D, u32 ROWS> __device__ __forceinline__ void clear_rows(bf16* tile, u32 valid, u32 id) {
    for (u32 i = valid * 8 + threadIdx.x % WARP_GROUP; i < ROWS * 8; i += WARP_GROUP)
#pragma unroll
        for (u32 panel = 0; panel < D / 64; ++panel)
            *reinterpret_cast<uint4*>(tile + panel * ROWS * 64 + i * 8) = uint4{};
    fence_async_proxy();
    part_sync(id, WARP_GROUP);
}

// Rows along the inner dimension: 16 channels from 16 k of the rows from `row`.
template <u32 ROWS> __device__ __forceinline__ Operand rows_of(const bf16* tile, u32 row, u32 k) {
    return operand(tile + (k / 4 * ROWS + row) * 64 + k % 4 * 16, 16, ATOM);
}

// Rows across it: all channels of the 16 rows from 16 k.
template <u32 ROWS> __device__ __forceinline__ Operand columns_of(const bf16* tile, u32 k) {
    return operand(tile + k * 16 * 64, ROWS * 128, ATOM);
}

// The weights of 16 N columns as left operands.
template <u32 N> __device__ __forceinline__ void pack_left(u32 (&p)[N][4], const float (&s)[2 * N][4]) {
#pragma unroll
    for (u32 i = 0; i < N; ++i) {
        p[i][0] = pack_bf16(s[2 * i][0], s[2 * i][1]);
        p[i][1] = pack_bf16(s[2 * i][2], s[2 * i][3]);
        p[i][2] = pack_bf16(s[2 * i + 1][0], s[2 * i + 1][1]);
        p[i][3] = pack_bf16(s[2 * i + 1][2], s[2 * i + 1][3]);
    }
}

// Writes this warp's 16 rows of an accumulator, rows g and g + 8 times `factor`, to `to`, `stride`
// values apart; rows from `valid` on are left out. They pass through rows row .. row + 15 of `tile`,
// which are the warp's own by now, so that global memory is written 16 bytes at a time.
template <u32 D, u32 ROWS>
__device__ __forceinline__ void store_rows(bf16* to, u64 stride, u32 valid, const float (&x)[D / 8][4],
                                           const float (&factor)[2], bf16* tile, u32 row) {
    u32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 n = 0; n < D / 8; ++n)
#pragma unroll
        for (u32 half = 0; half < 2; ++half)
            store_pair(chunk_at<64>(tile + n / 8 * ROWS * 64, row + g + half * 8, n % 8) + 2 * t,
                       x[n][2 * half] * factor[half], x[n][2 * half + 1] * factor[half]);
    __syncwarp();
#pragma unroll
    for (u32 i = lane; i < 16 * D / 8; i += WARP) {
        u32 r = i / (D / 8), chunk = i % (D / 8);
        if (r < valid)
            store(to + r * stride + chunk * 8, load(chunk_at<64>(tile + chunk / 8 * ROWS * 64, row + r, chunk % 8)));
    }
}
