// Causal attention forward for Hopper (sm_90a), after FlashAttention-3 (Shah et al. 2024, "Fast and
// Accurate Attention with Asynchrony and Low-precision", algorithms 1 and 2); the formula is that of
// attention.cu:
//   S = Q K^T / sqrt(D), P = softmax over the keys up to the query's own, O = P V, lse = ln sum e^S
//
// qkv [T, (H + 2G) D] bf16: a row is [H query heads | G key heads | G value heads], read through the
// map of it in boxes; out [T, H D] bf16; lse [T, H] fp32. D is 64 or 128. tiles [n, 3]: a document's
// first row, its length and the tile's first position in it; 128 positions a tile, longest first.
//
// A block has one tile of queries of one head, and three warp groups. One thread of the first is the
// producer: it copies the queries, then keys and values 128 positions at a time, from the tile's own
// back to the document's first, into two stages each. The two others own 64 queries each. A group
// has the scores of the next keys and the product of this step's weights with their values under way
// while it computes the next weights (algorithm 2), and the groups take turns in issuing products, so
// that the softmax of one falls under the products of the other (section 3.1). The mask is in the
// first step alone; tiles beyond it are not visited.
//
// Shared memory, panels in the 128-byte swizzle (panels.cuh): queries, two stages of keys, two of
// values, 160 D x 8 bytes, and nine barriers. Registers: 24 for the producer's group, 240 for the rest.
//
// Bound: 4 D FLOPs a visible (query, key) pair and query head; 4 (H + G) D + 4 H bytes a token.
#include "cuda/panels.cuh"

constexpr u32 TILE = 128;
constexpr u32 STAGES = 2;
constexpr u32 CONSUMERS = 2;
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;
// Part barriers: a group's turn to issue products, and its own.
constexpr u32 TURN = 1, OWN = 3;

struct Tile {
    u32 first, length, start;
};

// What lies in shared memory.
template <u32 D> struct ForwardMemory {
    bf16 *q, *k, *v;
    u64 *q_full, *k_full, *k_free, *v_full, *v_free;

    __device__ __forceinline__ explicit ForwardMemory(unsigned char* memory)
        : q(reinterpret_cast<bf16*>(memory)), k(q + TILE * D), v(k + STAGES * TILE * D),
          q_full(reinterpret_cast<u64*>(v + STAGES * TILE * D)), k_full(q_full + 1), k_free(k_full + STAGES),
          v_full(k_free + STAGES), v_free(v_full + STAGES) {}

    // A stage is full when its bytes are there, free when each warp of the consumers has said so.
    __device__ __forceinline__ void prepare() const {
        barrier_init(q_full, 1);
        for (u32 i = 0; i < STAGES; ++i) {
            barrier_init(k_full + i, 1);
            barrier_init(v_full + i, 1);
            barrier_init(k_free + i, CONSUMERS * WARP_GROUP / WARP);
            barrier_init(v_free + i, CONSUMERS * WARP_GROUP / WARP);
        }
        barriers_ready();
    }
};

// Step i is about tile last - i of the keys.
template <u32 D>
__device__ __forceinline__ void forward_producer(const ForwardMemory<D>& m, const TensorMap& map, const Tile& tile,
                                                 u32 head, u32 key_head, u32 value_head) {
    constexpr u32 BYTES = tile_bytes<TILE, D>();
    prefetch_map(map);
    barrier_expect(m.q_full, BYTES);
    fetch_tile<D, TILE>(m.q, map, head * D, tile.first + tile.start, m.q_full);
    u32 last = tile.start / TILE;
    for (u32 i = 0; i <= last; ++i) {
        u32 stage = i % STAGES, turn = i / STAGES % 2, row = tile.first + (last - i) * TILE;
        barrier_wait(m.k_free + stage, turn ^ 1);
        barrier_expect(m.k_full + stage, BYTES);
        fetch_tile<D, TILE>(m.k + stage * TILE * D, map, key_head * D, row, m.k_full + stage);
        barrier_wait(m.v_free + stage, turn ^ 1);
        barrier_expect(m.v_full + stage, BYTES);
        fetch_tile<D, TILE>(m.v + stage * TILE * D, map, value_head * D, row, m.v_full + stage);
    }
}

template <u32 D>
__device__ __forceinline__ void forward_consumer(const ForwardMemory<D>& m, bf16* out, float* lse, const Tile& tile,
                                                 u32 head, u32 heads, float scale) {
    u32 mine = threadIdx.x / WARP_GROUP - 1, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    u32 row = threadIdx.x / WARP % 4 * 16 + mine * 64, last = tile.start / TILE, valid = tile.length - tile.start;
    float o[D / 8][4] = {}, s[TILE / 8][4], keep[2];
    u32 p[TILE / 16][4];
    Running softmax;
    auto scores = [&](u32 i) {
        u32 stage = i % STAGES;
        barrier_wait(m.k_full + stage, i / STAGES % 2);
        wgmma_fence();
#pragma unroll
        for (u32 c = 0; c < D / 16; ++c)
            wgmma_rows(s, rows_of<TILE>(m.q, mine * 64, c), rows_of<TILE>(m.k + stage * TILE * D, 0, c), c > 0);
        wgmma_commit();
    };
    auto values = [&](u32 i) {
        u32 stage = i % STAGES;
        bf16* v = m.v + stage * TILE * D;
        barrier_wait(m.v_full + stage, i / STAGES % 2);
        if (i == 0 && valid < TILE) clear_rows<D, TILE>(v, valid, OWN + mine);
        wgmma_fence();
#pragma unroll
        for (u32 c = 0; c < TILE / 16; ++c) wgmma_columns<D / 8>(o, p[c], columns_of<TILE>(v, c));
        wgmma_commit();
    };
    auto release = [&](u64* free, u32 i) {
        if (lane == 0) barrier_arrive(free + i % STAGES);
    };

    // The first turn is the first group's.
    if (mine == 1 && last > 0) part_arrive(TURN, CONSUMERS * WARP_GROUP);
    barrier_wait(m.q_full, 0);
    scores(0);
    wgmma_wait<0>();
    wgmma_results(s);
    release(m.k_free, 0);
#pragma unroll
    for (u32 n = 0; n < TILE / 8; ++n)
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
            if (n * 8 + 2 * t + i % 2 > row + g + i / 2 * 8) s[n][i] = -INF;
    auto weigh = [&] {
#pragma unroll
        for (u32 half = 0; half < 2; ++half) keep[half] = softmax.weigh(s, half, scale * LOG2E);
    };
    weigh();
    pack_left(p, s);
    for (u32 i = 1; i <= last; ++i) {
        part_sync(TURN + mine, CONSUMERS * WARP_GROUP);
        scores(i);
        values(i - 1);
        if (mine == 0 || i < last) part_arrive(TURN + (mine ^ 1), CONSUMERS * WARP_GROUP);
        wgmma_wait<1>();
        wgmma_results(s);
        release(m.k_free, i);
        weigh();
        wgmma_wait<0>();
        wgmma_results(o);
        release(m.v_free, i - 1);
#pragma unroll
        for (u32 n = 0; n < D / 8; ++n)
#pragma unroll
            for (u32 c = 0; c < 4; ++c) o[n][c] *= keep[c / 2];
        pack_left(p, s);
    }
    values(last);
    wgmma_wait<0>();
    wgmma_results(o);
    softmax.finish();
    // The group's queries are no longer needed: its results lie over them.
    part_sync(OWN + mine, WARP_GROUP);
    u32 there = valid > row ? valid - row : 0;
    u64 at = u64(tile.first + tile.start + row) * heads + head;
    float inverse[2] = {1.0f / softmax.total[0], 1.0f / softmax.total[1]};
    store_rows<D, TILE>(out + at * D, u64(heads) * D, there, o, inverse, m.q, row);
    for (u32 half = 0; half < 2; ++half)
        if (t == 0 && g + half * 8 < there)
            lse[at + (g + half * 8) * heads] = softmax.top[half] * LN2 + logf(softmax.total[half]);
}

template <u32 D>
__device__ __forceinline__ void hopper_forward(bf16* out, float* lse, const TensorMap& qkv, const Tile* tiles,
                                               u32 heads, u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    ForwardMemory<D> m(memory);
    if (threadIdx.x == 0) m.prepare();
    __syncthreads();
    Tile tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, group = head / (heads / groups);
    if (threadIdx.x < WARP_GROUP) {
        registers_down<24>();
        if (threadIdx.x == 0) forward_producer(m, qkv, tile, head, heads + group, heads + groups + group);
    } else {
        registers_up<240>();
        forward_consumer(m, out, lse, tile, head, heads, scale);
    }
}

#define INSTANCES(D)                                                                                         \
    KERNEL_ALONE(384, attention_sm90a_forward_##D,                                                                 \
           (bf16 * out, float* lse, const __grid_constant__ TensorMap qkv, const Tile* tiles, u32 heads,     \
            u32 groups, float scale),                                                                        \
           hopper_forward<D>(out, lse, qkv, tiles, heads, groups, scale))
INSTANCES(64)
INSTANCES(128)
