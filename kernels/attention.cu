// Causal attention over packed documents with grouped query heads, in the manner of FlashAttention-2
// (Dao 2023), on mma.sync (sm_80 and later):
//   S = Q K^T / sqrt(D), P = softmax over the keys up to the query's own, O = P V, lse = ln sum e^S
//   delta = rowsum(dO O), dP = dO V^T, dS = P (dP - delta)
//   dV = P^T dO, dK = dS^T Q / sqrt(D), dQ = dS K / sqrt(D)
//
// qkv, dqkv [T, (H + 2G) D]: a row is [H query heads | G key heads | G value heads]; out, dout
// [T, H D]; lse, delta [T, H] fp32. D is 64 or 128. tiles [n, 3]: a document's first row, its length
// and the tile's first position in it; 64 positions a tile, longest first (the host lists them).
//
// A warp owns 16 rows of a tile and keeps their results in registers; operands pass through shared
// memory, the next tile being copied while this one is multiplied. The backward has two kernels,
// one a tile of keys (all query heads of the key head in turn) and one a tile of queries: no
// atomics, each sum in one fixed order. P, dP and dS never leave registers, since S^T = K Q^T has
// keys in rows and so stands as the left operand of dV and dK.
//
// Bound: 4 D FLOPs a visible (query, key) pair and query head forward, 14 D backward (S and dP
// computed twice); bytes, read and written at least once a token: 4 (H + G) D + 4 H forward,
// 8 (H + G) D + 8 H backward.
#include "cuda/tile.cuh"

constexpr u32 TILE = 64;
constexpr u32 STEP = 32;
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;

struct Tile {
    u32 first, length, start;
};

template <u32 D>
__device__ __forceinline__ void attention_forward(bf16* out, float* lse, const bf16* qkv, const Tile* tiles, u32 heads,
                                                  u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    bf16* q = reinterpret_cast<bf16*>(memory);
    bf16* k = q + TILE * D;
    bf16* v = k + 2 * TILE * D;
    Tile tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, group = head / (heads / groups), warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u64 row = u64(heads + 2 * groups) * D;
    const bf16* document = qkv + u64(tile.first) * row;
    const bf16* keys = document + (heads + group) * D;
    const bf16* values = keys + u64(groups) * D;
    auto fetch = [&](u32 j) {
        u32 valid = tile.length - j * TILE;
        copy_tile<D, TILE, 128>(k + j % 2 * TILE * D, keys + u64(j) * TILE * row, row, valid, threadIdx.x);
        copy_tile<D, TILE, 128>(v + j % 2 * TILE * D, values + u64(j) * TILE * row, row, valid, threadIdx.x);
    };
    copy_tile<D, TILE, 128>(q, document + u64(tile.start) * row + head * D, row, tile.length - tile.start, threadIdx.x);
    fetch(0);
    cp_async_commit();

    float o[D / 8][4] = {};
    Running softmax;
    u32 last = tile.start / TILE, g = lane / 4, t = lane % 4;
    for (u32 j = 0; j <= last; ++j) {
        if (j < last) fetch(j + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        float s[TILE / 8][4] = {};
        multiply_rows<D>(s, q, warp * 16, k + j % 2 * TILE * D);
        if (j == last) {
#pragma unroll
            for (u32 n = 0; n < TILE / 8; ++n)
#pragma unroll
                for (u32 i = 0; i < 4; ++i)
                    if (n * 8 + 2 * t + i % 2 > warp * 16 + g + i / 2 * 8) s[n][i] = -INF;
        }
        softmax.take(s, o, scale * LOG2E);
        multiply_columns<D>(o, s, v + j % 2 * TILE * D);
        __syncthreads();
    }
    softmax.finish();
    for (u32 half = 0; half < 2; ++half) {
        u32 position = tile.start + warp * 16 + g + half * 8;
        if (position >= tile.length) continue;
        u64 at = u64(tile.first + position) * heads + head;
        float inverse = 1.0f / softmax.total[half];
        for (u32 n = 0; n < D / 8; ++n)
            store_pair(out + at * D + n * 8 + 2 * t, o[n][2 * half] * inverse, o[n][2 * half + 1] * inverse);
        if (t == 0) lse[at] = softmax.top[half] * LN2 + logf(softmax.total[half]);
    }
}

// One warp a row and head.
template <u32 D>
__device__ __forceinline__ void attention_delta(float* delta, const bf16* dout, const bf16* out, u32 count) {
    u32 at = u32(global_thread() / WARP), lane = threadIdx.x % WARP;
    float sum = 0;
    if (at < count && lane < D / 8) {
        Pack<bf16> a = load(dout + u64(at) * D + lane * 8), b = load(out + u64(at) * D + lane * 8);
        for (u32 i = 0; i < 8; ++i) sum += to_float(a.v[i]) * to_float(b.v[i]);
    }
    sum = warp_reduce<Sum>(sum);
    if (at < count && lane == 0) delta[at] = sum;
}

// Gradients of one tile of keys and values.
template <u32 D>
__device__ __forceinline__ void attention_backward_keys(bf16* dqkv, const bf16* dout, const bf16* qkv,
                                                        const float* lse, const float* delta, const Tile* tiles,
                                                        u32 heads, u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    bf16* k = reinterpret_cast<bf16*>(memory);
    bf16* v = k + TILE * D;
    bf16* q = v + TILE * D;
    bf16* d = q + 2 * STEP * D;
    float* shift = reinterpret_cast<float*>(d + 2 * STEP * D);
    float* through = shift + 2 * STEP;
    Tile tile = tiles[blockIdx.x];
    u32 group = blockIdx.y, ratio = heads / groups, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 g = lane / 4, t = lane % 4;
    u64 row = u64(heads + 2 * groups) * D;
    const bf16* document = qkv + u64(tile.first) * row;
    // Queries from the tile on, for each query head of the group in turn.
    u32 steps = (tile.length - tile.start + STEP - 1) / STEP, all = ratio * steps;
    auto fetch = [&](u32 i) {
        u32 head = group * ratio + i / steps, start = tile.start + i % steps * STEP, stage = i % 2;
        u32 valid = tile.length - start;
        copy_tile<D, STEP, 128>(q + stage * STEP * D, document + start * row + head * D, row, valid, threadIdx.x);
        copy_tile<D, STEP, 128>(d + stage * STEP * D, dout + (u64(tile.first + start) * heads + head) * D,
                                u64(heads) * D, valid, threadIdx.x);
        if (threadIdx.x < STEP) {
            u64 at = u64(tile.first + start + threadIdx.x) * heads + head;
            bool there = threadIdx.x < valid;
            // Beyond the document P is 2^-inf = 0.
            shift[stage * STEP + threadIdx.x] = there ? lse[at] * LOG2E : INF;
            through[stage * STEP + threadIdx.x] = there ? delta[at] : 0.0f;
        }
    };
    u32 valid = tile.length - tile.start;
    const bf16* keys = document + u64(tile.start) * row + (heads + group) * D;
    copy_tile<D, TILE, 128>(k, keys, row, valid, threadIdx.x);
    copy_tile<D, TILE, 128>(v, keys + u64(groups) * D, row, valid, threadIdx.x);
    fetch(0);
    cp_async_commit();

    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (u32 i = 0; i < all; ++i) {
        if (i + 1 < all) fetch(i + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        u32 stage = i % 2, ahead = i % steps * STEP;
        float p[STEP / 8][4] = {}, ds[STEP / 8][4] = {};
        multiply_rows<D>(p, k, warp * 16, q + stage * STEP * D);
        multiply_rows<D>(ds, v, warp * 16, d + stage * STEP * D);
#pragma unroll
        for (u32 n = 0; n < STEP / 8; ++n) {
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 query = n * 8 + 2 * t + j % 2, key = warp * 16 + g + j / 2 * 8;
                float x = exp2_fast(p[n][j] * (scale * LOG2E) - shift[stage * STEP + query]);
                p[n][j] = key > ahead + query ? 0.0f : x;
                ds[n][j] = p[n][j] * (ds[n][j] - through[stage * STEP + query]);
            }
        }
        multiply_columns<D>(dv, p, d + stage * STEP * D);
        multiply_columns<D>(dk, ds, q + stage * STEP * D);
        __syncthreads();
    }
    for (u32 half = 0; half < 2; ++half) {
        u32 position = tile.start + warp * 16 + g + half * 8;
        if (position >= tile.length) continue;
        bf16* to = dqkv + u64(tile.first + position) * row + (heads + group) * D;
        for (u32 n = 0; n < D / 8; ++n) {
            store_pair(to + n * 8 + 2 * t, dk[n][2 * half] * scale, dk[n][2 * half + 1] * scale);
            store_pair(to + u64(groups) * D + n * 8 + 2 * t, dv[n][2 * half], dv[n][2 * half + 1]);
        }
    }
}

// Gradients of one tile of queries.
template <u32 D>
__device__ __forceinline__ void attention_backward_queries(bf16* dqkv, const bf16* dout, const bf16* qkv,
                                                           const float* lse, const float* delta, const Tile* tiles,
                                                           u32 heads, u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    bf16* q = reinterpret_cast<bf16*>(memory);
    bf16* d = q + TILE * D;
    bf16* k = d + TILE * D;
    bf16* v = k + 2 * STEP * D;
    Tile tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, group = head / (heads / groups), warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 g = lane / 4, t = lane % 4;
    u64 row = u64(heads + 2 * groups) * D;
    const bf16* document = qkv + u64(tile.first) * row;
    const bf16* keys = document + (heads + group) * D;
    auto fetch = [&](u32 j) {
        u32 valid = tile.length - j * STEP, stage = j % 2;
        copy_tile<D, STEP, 128>(k + stage * STEP * D, keys + u64(j) * STEP * row, row, valid, threadIdx.x);
        copy_tile<D, STEP, 128>(v + stage * STEP * D, keys + u64(j) * STEP * row + u64(groups) * D, row, valid,
                                threadIdx.x);
    };
    u32 valid = tile.length - tile.start;
    copy_tile<D, TILE, 128>(q, document + u64(tile.start) * row + head * D, row, valid, threadIdx.x);
    copy_tile<D, TILE, 128>(d, dout + (u64(tile.first + tile.start) * heads + head) * D, u64(heads) * D, valid,
                            threadIdx.x);
    fetch(0);
    cp_async_commit();

    float shift[2], through[2];
    for (u32 half = 0; half < 2; ++half) {
        u32 position = warp * 16 + g + half * 8;
        u64 at = u64(tile.first + tile.start + position) * heads + head;
        shift[half] = position < valid ? lse[at] * LOG2E : INF;
        through[half] = position < valid ? delta[at] : 0.0f;
    }
    float dq[D / 8][4] = {};
    u32 seen = min(tile.start + TILE, tile.length), steps = (seen + STEP - 1) / STEP;
    for (u32 j = 0; j < steps; ++j) {
        if (j + 1 < steps) fetch(j + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        u32 stage = j % 2;
        float p[STEP / 8][4] = {}, ds[STEP / 8][4] = {};
        multiply_rows<D>(p, q, warp * 16, k + stage * STEP * D);
        multiply_rows<D>(ds, d, warp * 16, v + stage * STEP * D);
#pragma unroll
        for (u32 n = 0; n < STEP / 8; ++n) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                u32 query = tile.start + warp * 16 + g + i / 2 * 8, key = j * STEP + n * 8 + 2 * t + i % 2;
                float x = exp2_fast(p[n][i] * (scale * LOG2E) - shift[i / 2]);
                ds[n][i] = key > query ? 0.0f : x * (ds[n][i] - through[i / 2]);
            }
        }
        multiply_columns<D>(dq, ds, k + stage * STEP * D);
        __syncthreads();
    }
    for (u32 half = 0; half < 2; ++half) {
        u32 position = tile.start + warp * 16 + g + half * 8;
        if (position >= tile.length) continue;
        bf16* to = dqkv + u64(tile.first + position) * row + head * D;
        for (u32 n = 0; n < D / 8; ++n)
            store_pair(to + n * 8 + 2 * t, dq[n][2 * half] * scale, dq[n][2 * half + 1] * scale);
    }
}

#define INSTANCES(D)                                                                                         \
    KERNEL(128, attention_forward_##D,                                                                       \
           (bf16 * out, float* lse, const bf16* qkv, const Tile* tiles, u32 heads, u32 groups, float scale), \
           attention_forward<D>(out, lse, qkv, tiles, heads, groups, scale))                                 \
    KERNEL(256, attention_delta_##D, (float* delta, const bf16* dout, const bf16* out, u32 count),           \
           attention_delta<D>(delta, dout, out, count))                                                      \
    KERNEL(128, attention_backward_keys_##D,                                                                 \
           (bf16 * dqkv, const bf16* dout, const bf16* qkv, const float* lse, const float* delta,            \
            const Tile* tiles, u32 heads, u32 groups, float scale),                                          \
           attention_backward_keys<D>(dqkv, dout, qkv, lse, delta, tiles, heads, groups, scale))             \
    KERNEL(128, attention_backward_queries_##D,                                                              \
           (bf16 * dqkv, const bf16* dout, const bf16* qkv, const float* lse, const float* delta,            \
            const Tile* tiles, u32 heads, u32 groups, float scale),                                          \
           attention_backward_queries<D>(dqkv, dout, qkv, lse, delta, tiles, heads, groups, scale))
INSTANCES(64)
INSTANCES(128)
