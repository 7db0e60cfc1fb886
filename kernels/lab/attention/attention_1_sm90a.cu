// Attempt 1 at causal attention forward for Hopper: the formula, shapes and tiles list of
// attention.cu, the products by wgmma, which reads its operands from shared memory at full rate.
//
// A block has 128 queries of one head: two warp groups of 64 rows each. Keys and values come 128
// positions at a time in two stages by cp.async, as panels of 64 channels in the 128-byte swizzle.
// tiles [n, 3] lists blocks of 128 positions. Softmax and products take turns: while a warp group is in
// one, its part of the other units is idle. Attempt 2 (attention_sm90a.cu) overlaps them.
//
// Bound: 4 D FLOPs a visible (query, key) pair and query head.
#include "cuda/tile.cuh"
#include "cuda/wgmma.cuh"

constexpr u32 TILE = 128;
constexpr u32 THREADS = 256;
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;

struct Tile {
    u32 first, length, start;
};

// Starts the copy of 128 rows of D channels into panels [128, 64]; rows from `valid` on are zeros.
template <u32 D>
__device__ __forceinline__ void copy_panels(bf16* to, const bf16* from, u64 stride, u32 valid) {
#pragma unroll
    for (u32 i = threadIdx.x; i < TILE * D / 8; i += THREADS) {
        u32 row = i / (D / 8), chunk = i % (D / 8);
        bool there = row < valid;
        cp_async(chunk_at<64>(to + chunk / 8 * TILE * 64, row, chunk % 8),
                 there ? from + row * stride + chunk * 8 : from, there);
    }
}

template <u32 D>
__device__ __forceinline__ void attempt_1_forward(bf16* out, float* lse, const bf16* qkv, const Tile* tiles, u32 heads,
                                                  u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    constexpr u32 PANEL = TILE * 64, ATOM = 1024;
    bf16* q = reinterpret_cast<bf16*>(memory);
    bf16* k = q + TILE * D;
    bf16* v = k + 2 * TILE * D;
    Tile tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, group = head / (heads / groups), warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 g = lane / 4, t = lane % 4, mine = threadIdx.x / 128 * 64;
    u64 row = u64(heads + 2 * groups) * D;
    const bf16* document = qkv + u64(tile.first) * row;
    const bf16* keys = document + (heads + group) * D;
    auto fetch = [&](u32 j) {
        u32 valid = tile.length - j * TILE, stage = j % 2 * TILE * D;
        copy_panels<D>(k + stage, keys + u64(j) * TILE * row, row, valid);
        copy_panels<D>(v + stage, keys + u64(j) * TILE * row + u64(groups) * D, row, valid);
    };
    copy_panels<D>(q, document + u64(tile.start) * row + head * D, row, tile.length - tile.start);
    fetch(0);
    cp_async_commit();

    float o[D / 8][4] = {};
    Running softmax;
    u32 last = tile.start / TILE;
    for (u32 j = 0; j <= last; ++j) {
        if (j < last) fetch(j + 1);
        cp_async_commit();
        cp_async_wait<1>();
        fence_async_proxy();
        __syncthreads();
        const bf16* k_now = k + j % 2 * TILE * D;
        const bf16* v_now = v + j % 2 * TILE * D;
        float s[TILE / 8][4];
        wgmma_fence();
#pragma unroll
        for (u32 i = 0; i < D / 16; ++i) {
            // Four steps of 16 channels a panel, 32 bytes apart within the swizzled rows.
            u32 at = i / 4 * PANEL + i % 4 * 16;
            wgmma_rows(s, operand(q + at + mine * 64, 16, ATOM), operand(k_now + at, 16, ATOM), i > 0);
        }
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_results(s);
        if (j == last) {
#pragma unroll
            for (u32 n = 0; n < TILE / 8; ++n)
#pragma unroll
                for (u32 i = 0; i < 4; ++i)
                    if (n * 8 + 2 * t + i % 2 > warp * 16 + g + i / 2 * 8) s[n][i] = -INF;
        }
        softmax.take(s, o, scale * LOG2E);
        u32 p[TILE / 16][4];
#pragma unroll
        for (u32 i = 0; i < TILE / 16; ++i) {
            p[i][0] = pack_bf16(s[2 * i][0], s[2 * i][1]);
            p[i][1] = pack_bf16(s[2 * i][2], s[2 * i][3]);
            p[i][2] = pack_bf16(s[2 * i + 1][0], s[2 * i + 1][1]);
            p[i][3] = pack_bf16(s[2 * i + 1][2], s[2 * i + 1][3]);
        }
        wgmma_fence();
#pragma unroll
        for (u32 i = 0; i < TILE / 16; ++i)
            wgmma_columns<D / 8>(o, p[i], operand(v_now + i * 16 * 64, PANEL * 2, ATOM));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_results(o);
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

#define INSTANCES(D)                                                                                         \
    KERNEL(256, attention_1_sm90a_forward_##D,                                                                 \
           (bf16 * out, float* lse, const bf16* qkv, const Tile* tiles, u32 heads, u32 groups, float scale), \
           attempt_1_forward<D>(out, lse, qkv, tiles, heads, groups, scale))
INSTANCES(64)
INSTANCES(128)
