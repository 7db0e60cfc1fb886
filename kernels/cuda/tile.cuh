// Tiles of bf16 in shared memory, D channels a row, and their fragments for mma. The 16-byte chunks
// of a row are permuted by the row's number, so that eight rows of one chunk lie in eight groups of
// banks.
#pragma once
#include "cuda/device.cuh"

template <u32 D> __device__ __forceinline__ bf16* chunk_at(bf16* tile, u32 row, u32 chunk) {
    return tile + row * D + ((chunk ^ (row & 7)) * 8);
}

// Starts the copy of ROWS rows of D channels, `stride` values apart, by THREADS threads; rows from
// `valid` on become zeros.
template <u32 D, u32 ROWS, u32 THREADS>
__device__ __forceinline__ void copy_tile(bf16* tile, const bf16* from, u64 stride, u32 valid, u32 thread) {
    constexpr u32 CHUNKS = D / 8;
    static_assert(ROWS * CHUNKS % THREADS == 0, "threads share the chunks evenly");
#pragma unroll
    for (u32 i = thread; i < ROWS * CHUNKS; i += THREADS) {
        u32 row = i / CHUNKS, chunk = i % CHUNKS;
        bool there = row < valid;
        cp_async(chunk_at<D>(tile, row, chunk), there ? from + row * stride + chunk * 8 : from, there);
    }
}

// Rows row .. row + 15, channels 16 k .. 16 k + 15, as the left operand.
template <u32 D> __device__ __forceinline__ void left(u32 (&a)[4], bf16* tile, u32 row, u32 k) {
    u32 lane = threadIdx.x % WARP;
    ldmatrix(a, chunk_at<D>(tile, row + lane % 16, 2 * k + lane / 16));
}

// The right operand of x · rowᵀ: rows row .. row + 15 of the tile are 16 columns, channels 16 k ..
// are the inner dimension. b[0], b[1] serve the first eight columns, b[2], b[3] the others.
template <u32 D> __device__ __forceinline__ void right_rows(u32 (&b)[4], bf16* tile, u32 row, u32 k) {
    u32 lane = threadIdx.x % WARP;
    ldmatrix(b, chunk_at<D>(tile, row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
}

// The right operand of x · tile: rows 16 k .. 16 k + 15 are the inner dimension, channels 16 n .. are
// 16 columns.
template <u32 D> __device__ __forceinline__ void right_columns(u32 (&b)[4], bf16* tile, u32 k, u32 n) {
    u32 lane = threadIdx.x % WARP;
    ldmatrix_transposed(b, chunk_at<D>(tile, 16 * k + lane % 16, 2 * n + lane / 16));
}

// s [16, 8 N] += rows of `a` (16 from `a_row`) times rows of `b` (8 N from 0), over D channels.
template <u32 D, u32 N>
__device__ __forceinline__ void multiply_rows(float (&s)[N][4], bf16* a, u32 a_row, bf16* b) {
#pragma unroll
    for (u32 k = 0; k < D / 16; ++k) {
        u32 x[4];
        left<D>(x, a, a_row, k);
#pragma unroll
        for (u32 n = 0; n < N; n += 2) {
            u32 y[4];
            right_rows<D>(y, b, n * 8, k);
            mma(s[n], x, y[0], y[1]);
            mma(s[n + 1], x, y[2], y[3]);
        }
    }
}

// o [16, D] += p [16, 8 N] times the 8 N rows of `b`; p stands in accumulators, which have the
// layout of a left operand.
template <u32 D, u32 N>
__device__ __forceinline__ void multiply_columns(float (&o)[D / 8][4], const float (&p)[N][4], bf16* b) {
#pragma unroll
    for (u32 k = 0; k < N / 2; ++k) {
        u32 x[4] = {pack_bf16(p[2 * k][0], p[2 * k][1]), pack_bf16(p[2 * k][2], p[2 * k][3]),
                    pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]), pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (u32 n = 0; n < D / 16; ++n) {
            u32 y[4];
            right_columns<D>(y, b, k, n);
            mma(o[2 * n], x, y[0], y[1]);
            mma(o[2 * n + 1], x, y[2], y[3]);
        }
    }
}

// Over the four lanes that hold one row of an accumulator.
template <class Op> __device__ __forceinline__ float row_reduce(float x) {
    x = Op::of(x, __shfl_xor_sync(FULL, x, 1));
    return Op::of(x, __shfl_xor_sync(FULL, x, 2));
}

// Two neighbouring values of a row.
__device__ __forceinline__ void store_pair(bf16* to, float a, float b) {
    *reinterpret_cast<u32*>(to) = pack_bf16(a, b);
}

// One instruction, where Max takes a comparison and a choice; a NaN loses.
struct Greatest {
    __device__ __forceinline__ static float of(float a, float b) { return fmaxf(a, b); }
};

// The softmax of a row as it is gathered: the largest score so far and the sum of 2^(s - top), for
// rows g and g + 8 of a warp's accumulators.
struct Running {
    float top[2] = {-INF, -INF};
    float total[2] = {0.0f, 0.0f};

    // Turns the scores of one row, which are multiplied by `scale` (positive, with log2 e), into
    // 2^(s - top); gives by how much what was gathered before shrinks.
    template <u32 N> __device__ __forceinline__ float weigh(float (&s)[N][4], u32 half, float scale) {
        float high = -INF;
#pragma unroll
        for (u32 n = 0; n < N; ++n) high = fmaxf(high, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        high = fmaxf(top[half], row_reduce<Greatest>(high) * scale);
        // Where nothing is visible yet, all weights are 0.
        float base = high == -INF ? 0.0f : high;
        float keep = exp2_fast(top[half] - base);
        top[half] = high;
        float sum = 0;
#pragma unroll
        for (u32 n = 0; n < N; ++n) {
#pragma unroll
            for (u32 j = 2 * half; j < 2 * half + 2; ++j) {
                s[n][j] = exp2_fast(s[n][j] * scale - base);
                sum += s[n][j];
            }
        }
        total[half] = total[half] * keep + sum;
        return keep;
    }

    // The same for both rows, and rescales o.
    template <u32 N, u32 M> __device__ __forceinline__ void take(float (&s)[N][4], float (&o)[M][4], float scale) {
#pragma unroll
        for (u32 half = 0; half < 2; ++half) {
            float keep = weigh(s, half, scale);
#pragma unroll
            for (u32 m = 0; m < M; ++m) {
                o[m][2 * half] *= keep;
                o[m][2 * half + 1] *= keep;
            }
        }
    }

    // The totals over the four lanes of a row.
    __device__ __forceinline__ void finish() {
        for (u32 half = 0; half < 2; ++half) total[half] = row_reduce<Sum>(total[half]);
    }
};
