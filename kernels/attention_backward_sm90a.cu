// Causal attention backward for Hopper (sm_90a): the formula of attention.cu, its products by wgmma,
//   P = e^(S - lse), dP = dO V^T, dS = P (dP - delta), delta = rowsum(dO O)
//   dV = P^T dO, dK = dS^T Q / sqrt(D), dQ = dS K / sqrt(D)
//
// qkv, dqkv [T, (H + 2G) D], dout [T, H D] bf16; lse, delta [T, H] fp32 (delta by attention_delta of
// attention.cu). D is 64 or 128. tiles [n, 3] as in the forward, 128 positions a tile: of queries or
// of keys, those with most to do first. qkv and dout are read through their maps in boxes.
//
// Two kernels, so no atomics and each sum in one fixed order. One has a tile of keys and visits the
// queries from there on, 64 at a time, for each query head of the key head in turn; the other a tile of
// queries and visits the keys up to there. Roles are those of the forward: a producer's warp keeps two
// stages filled, two warp groups own 64 rows of the tile each and keep its gradients in registers. P, dP
// and dS never leave registers: S^T = K Q^T has keys in rows, as dV and dK want their left operand.
// Exponentials fall under dP's product, and dQ's product under the next step's scores. Steps that are
// wholly masked for a group are skipped.
//
// Shared memory: two tiles, two stages of two half tiles, 8 x 128 D bytes; for keys two stages of lse
// and delta, 4 x 64 floats; five barriers. Registers: 24 for the producer's group, 240 for the rest.
//
// Bound: 14 D FLOPs a visible pair and query head (S and dP computed twice; 10 D are needed);
// 8 (H + G) D + 8 H bytes a token.
#include "cuda/panels.cuh"

constexpr u32 TILE = 128;
constexpr u32 STEP = 64;
constexpr u32 STAGES = 2;
constexpr u32 CONSUMERS = 2;
constexpr float LOG2E = 1.4426950408889634f;
// Part barriers, one a consumer group.
constexpr u32 OWN = 1;

struct Tile {
    u32 first, length, start;
};

// Where a tile's two operands (own) and the visited ones (step) lie in qkv and dout.
struct Columns {
    u32 query, key, value;
};

// What lies in shared memory: two tiles, stages of two operands, and what goes with the queries.
template <u32 D> struct BackwardMemory {
    bf16 *own[2], *step[2];
    float *shift, *through;
    u64 *own_full, *full, *free;

    __device__ __forceinline__ explicit BackwardMemory(unsigned char* memory) {
        own[0] = reinterpret_cast<bf16*>(memory);
        own[1] = own[0] + TILE * D;
        step[0] = own[1] + TILE * D;
        step[1] = step[0] + STAGES * STEP * D;
        shift = reinterpret_cast<float*>(step[1] + STAGES * STEP * D);
        through = shift + STAGES * STEP;
        own_full = reinterpret_cast<u64*>(through + STAGES * STEP);
        full = own_full + 1;
        free = full + STAGES;
    }

    __device__ __forceinline__ void prepare() const {
        barrier_init(own_full, 1);
        for (u32 i = 0; i < STAGES; ++i) {
            // Each lane of the producer's warp.
            barrier_init(full + i, WARP);
            barrier_init(free + i, CONSUMERS * WARP_GROUP / WARP);
        }
        barriers_ready();
    }
};

// Both operands of a box's worth of rows: 64 queries or 64 keys.
template <u32 D>
__device__ __forceinline__ void fetch_step(const BackwardMemory<D>& m, u32 stage, const TensorMap& a, u32 a_column,
                                           const TensorMap& b, u32 b_column, u32 row) {
    barrier_expect(m.full + stage, 2 * tile_bytes<STEP, D>());
    fetch_tile<D, STEP>(m.step[0] + stage * STEP * D, a, a_column, row, m.full + stage);
    fetch_tile<D, STEP>(m.step[1] + stage * STEP * D, b, b_column, row, m.full + stage);
}

template <u32 D>
__device__ __forceinline__ void fetch_own(const BackwardMemory<D>& m, const TensorMap& a, u32 a_column,
                                          const TensorMap& b, u32 b_column, u32 row) {
    barrier_expect(m.own_full, 2 * tile_bytes<TILE, D>());
    fetch_tile<D, TILE>(m.own[0], a, a_column, row, m.own_full);
    fetch_tile<D, TILE>(m.own[1], b, b_column, row, m.own_full);
}

// s = rows of `a` (64 from `row`) times rows of `b`.
template <u32 D>
__device__ __forceinline__ void score(float (&s)[STEP / 8][4], const bf16* a, u32 row, const bf16* b) {
#pragma unroll
    for (u32 c = 0; c < D / 16; ++c) wgmma_rows(s, rows_of<TILE>(a, row, c), rows_of<STEP>(b, 0, c), c > 0);
    wgmma_commit();
}

// o += weights times the rows of `b`.
template <u32 D>
__device__ __forceinline__ void gather_rows(float (&o)[D / 8][4], const u32 (&p)[STEP / 16][4], const bf16* b) {
#pragma unroll
    for (u32 c = 0; c < STEP / 16; ++c) wgmma_columns<D / 8>(o, p[c], columns_of<STEP>(b, c));
    wgmma_commit();
}

// Gradients of one tile of keys and values. Step i visits 64 queries of one head.
template <u32 D>
__device__ __forceinline__ void hopper_backward_keys(bf16* dqkv, const TensorMap& dout, const TensorMap& qkv,
                                                     const float* lse, const float* delta, const Tile* tiles,
                                                     u32 heads, u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    BackwardMemory<D> m(memory);
    if (threadIdx.x == 0) m.prepare();
    __syncthreads();
    Tile tile = tiles[blockIdx.x];
    u32 group = blockIdx.y, ratio = heads / groups, left = tile.length - tile.start, lane = threadIdx.x % WARP;
    u32 steps = (left + STEP - 1) / STEP, all = ratio * steps, origin = tile.first + tile.start;
    if (threadIdx.x < WARP_GROUP) {
        registers_down<24>();
        if (threadIdx.x >= WARP) return;
        if (lane == 0) fetch_own(m, qkv, (heads + group) * D, qkv, (heads + groups + group) * D, origin);
        for (u32 i = 0; i < all; ++i) {
            u32 stage = i % STAGES, head = group * ratio + i / steps, ahead = i % steps * STEP;
            barrier_wait(m.free + stage, i / STAGES % 2 ^ 1);
            for (u32 r = lane; r < STEP; r += WARP) {
                bool there = ahead + r < left;
                u64 at = u64(origin + ahead + r) * heads + head;
                // Beyond the document P is 2^-inf = 0.
                m.shift[stage * STEP + r] = there ? lse[at] * LOG2E : INF;
                m.through[stage * STEP + r] = there ? delta[at] : 0.0f;
            }
            if (lane == 0)
                fetch_step(m, stage, qkv, head * D, dout, head * D, origin + ahead);
            else
                barrier_arrive(m.full + stage);
        }
        return;
    }
    registers_up<240>();
    u32 mine = threadIdx.x / WARP_GROUP - 1, g = lane / 4, t = lane % 4, row = threadIdx.x / WARP % 4 * 16 + mine * 64;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    barrier_wait(m.own_full, 0);
    for (u32 i = 0; i < all; ++i) {
        u32 stage = i % STAGES, ahead = i % steps * STEP;
        bf16 *q = m.step[0] + stage * STEP * D, *d = m.step[1] + stage * STEP * D;
        const float *shift = m.shift + stage * STEP, *through = m.through + stage * STEP;
        barrier_wait(m.full + stage, i / STAGES % 2);
        // The queries of the first step come before the second group's keys.
        if (ahead >= mine * 64) {
            if (left - ahead < STEP) {
                clear_rows<D, STEP>(q, left - ahead, OWN + mine);
                clear_rows<D, STEP>(d, left - ahead, OWN + mine);
            }
            float s[STEP / 8][4], dp[STEP / 8][4];
            u32 p[STEP / 16][4], ds[STEP / 16][4];
            wgmma_fence();
            score<D>(s, m.own[0], mine * 64, q);
            score<D>(dp, m.own[1], mine * 64, d);
            wgmma_wait<1>();
            wgmma_results(s);
#pragma unroll
            for (u32 n = 0; n < STEP / 8; ++n) {
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    u32 query = n * 8 + 2 * t + j % 2;
                    float x = exp2_fast(s[n][j] * (scale * LOG2E) - shift[query]);
                    s[n][j] = row + g + j / 2 * 8 > ahead + query ? 0.0f : x;
                }
            }
            pack_left(p, s);
            wgmma_wait<0>();
            wgmma_results(dp);
            wgmma_fence();
            gather_rows<D>(dv, p, d);
#pragma unroll
            for (u32 n = 0; n < STEP / 8; ++n)
#pragma unroll
                for (u32 j = 0; j < 4; ++j) s[n][j] *= dp[n][j] - through[n * 8 + 2 * t + j % 2];
            pack_left(ds, s);
            wgmma_fence();
            gather_rows<D>(dk, ds, q);
            wgmma_wait<0>();
            wgmma_results(dv);
            wgmma_results(dk);
        }
        if (lane == 0) barrier_arrive(m.free + stage);
    }
    // The group's keys and values are no longer needed: its results lie over them.
    part_sync(OWN + mine, WARP_GROUP);
    u64 stride = u64(heads + 2 * groups) * D;
    u32 there = left > row ? left - row : 0;
    bf16* to = dqkv + u64(origin + row) * stride + (heads + group) * D;
    float scales[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
    store_rows<D, TILE>(to, stride, there, dk, scales, m.own[0], row);
    store_rows<D, TILE>(to + u64(groups) * D, stride, there, dv, ones, m.own[1], row);
}

// Gradients of one tile of queries. Step j visits 64 keys.
template <u32 D>
__device__ __forceinline__ void hopper_backward_queries(bf16* dqkv, const TensorMap& dout, const TensorMap& qkv,
                                                        const float* lse, const float* delta, const Tile* tiles,
                                                        u32 heads, u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    BackwardMemory<D> m(memory);
    if (threadIdx.x == 0) m.prepare();
    __syncthreads();
    Tile tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, group = head / (heads / groups), lane = threadIdx.x % WARP;
    u32 left = tile.length - tile.start, steps = (min(tile.start + TILE, tile.length) + STEP - 1) / STEP;
    if (threadIdx.x < WARP_GROUP) {
        registers_down<24>();
        if (threadIdx.x >= WARP) return;
        if (lane == 0) fetch_own(m, qkv, head * D, dout, head * D, tile.first + tile.start);
        for (u32 j = 0; j < steps; ++j) {
            u32 stage = j % STAGES;
            barrier_wait(m.free + stage, j / STAGES % 2 ^ 1);
            if (lane == 0)
                fetch_step(m, stage, qkv, (heads + group) * D, qkv, (heads + groups + group) * D,
                           tile.first + j * STEP);
            else
                barrier_arrive(m.full + stage);
        }
        return;
    }
    registers_up<240>();
    u32 mine = threadIdx.x / WARP_GROUP - 1, g = lane / 4, t = lane % 4, row = threadIdx.x / WARP % 4 * 16 + mine * 64;
    float shift[2], through[2];
    for (u32 half = 0; half < 2; ++half) {
        bool there = row + g + half * 8 < left;
        u64 at = u64(tile.first + tile.start + row + g + half * 8) * heads + head;
        shift[half] = there ? lse[at] * LOG2E : INF;
        through[half] = there ? delta[at] : 0.0f;
    }
    float dq[D / 8][4] = {}, s[STEP / 8][4], dp[STEP / 8][4];
    u32 ds[STEP / 16][4];
    // The last keys come after the first group's queries.
    u32 seen = min(steps, (tile.start + mine * 64) / STEP + 1);
    auto scores = [&](u32 j) {
        u32 stage = j % STAGES;
        bf16 *k = m.step[0] + stage * STEP * D, *v = m.step[1] + stage * STEP * D;
        barrier_wait(m.full + stage, j / STAGES % 2);
        if (tile.length - j * STEP < STEP) {
            clear_rows<D, STEP>(k, tile.length - j * STEP, OWN + mine);
            clear_rows<D, STEP>(v, tile.length - j * STEP, OWN + mine);
        }
        wgmma_fence();
        score<D>(s, m.own[0], mine * 64, k);
        score<D>(dp, m.own[1], mine * 64, v);
    };
    auto sum = [&](u32 j) {
        wgmma_wait<1>();
        wgmma_results(s);
#pragma unroll
        for (u32 n = 0; n < STEP / 8; ++n) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                u32 query = tile.start + row + g + i / 2 * 8, key = j * STEP + n * 8 + 2 * t + i % 2;
                float x = exp2_fast(s[n][i] * (scale * LOG2E) - shift[i / 2]);
                s[n][i] = key > query ? 0.0f : x;
            }
        }
        wgmma_wait<0>();
        wgmma_results(dp);
#pragma unroll
        for (u32 n = 0; n < STEP / 8; ++n)
#pragma unroll
            for (u32 i = 0; i < 4; ++i) s[n][i] *= dp[n][i] - through[i / 2];
        pack_left(ds, s);
        wgmma_fence();
        gather_rows<D>(dq, ds, m.step[0] + j % STAGES * STEP * D);
    };
    barrier_wait(m.own_full, 0);
    scores(0);
    sum(0);
    for (u32 j = 1; j < seen; ++j) {
        scores(j);
        wgmma_wait<2>();
        if (lane == 0) barrier_arrive(m.free + (j - 1) % STAGES);
        sum(j);
    }
    wgmma_wait<0>();
    wgmma_results(dq);
    // What was not seen is not waited for: the producer needs no more stages.
    part_sync(OWN + mine, WARP_GROUP);
    u64 stride = u64(heads + 2 * groups) * D;
    float scales[2] = {scale, scale};
    store_rows<D, TILE>(dqkv + u64(tile.first + tile.start + row) * stride + head * D, stride,
                        left > row ? left - row : 0, dq, scales, m.own[0], row);
}

#define PARAMETERS                                                                                           \
    (bf16 * dqkv, const __grid_constant__ TensorMap dout, const __grid_constant__ TensorMap qkv,             \
     const float* lse, const float* delta, const Tile* tiles, u32 heads, u32 groups, float scale)
#define INSTANCES(D)                                                                                         \
    KERNEL_ALONE(384, attention_backward_sm90a_keys_##D, PARAMETERS,                                               \
           hopper_backward_keys<D>(dqkv, dout, qkv, lse, delta, tiles, heads, groups, scale))                \
    KERNEL_ALONE(384, attention_backward_sm90a_queries_##D, PARAMETERS,                                            \
           hopper_backward_queries<D>(dqkv, dout, qkv, lse, delta, tiles, heads, groups, scale))
INSTANCES(64)
INSTANCES(128)
