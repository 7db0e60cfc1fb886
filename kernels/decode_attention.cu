// Attention of one new token a sequence over a paged cache of keys and values, and the cache's
// filling.
//
// keys, values [pages, G, 16, D]: a page holds sixteen positions of all key heads. qkv [B, (H + 2G) D]
// as in attention.cu, one row a sequence; out [B, H D]. D is 64 or 128, H / G at most 16.
//
// The context is split every 256 positions, whatever the batch, so that a sequence's result has the
// same bits in every batch. An item is one split of up to 16 / (H/G) sequences which share that
// split's pages (samples of one prompt): their query heads are the 16 rows of one tile, which a
// sequence alone would leave mostly empty, and the pages are read once for all. Four warps take the
// item's pages in turn, each with its own copies in flight; their results are joined in order. Then
// `decode_attention_join` joins a sequence's splits in order.
//
// items [n, 5]: place of the split's first page in `pages`, positions in the split, the split's
// number, place of the first sequence in `members`, sequences. partial [parts, H, D + 2] fp32: output
// not yet divided, largest score, sum; parts_first [B + 1]: a sequence's first part.
//
// Bound: 4 G D bytes a position of context, once for all that share it; 4 D FLOPs a position and query
// head, on tensor cores.
#include "cuda/tile.cuh"

constexpr u32 PAGE = 16;
constexpr float LOG2E = 1.4426950408889634f;

struct Item {
    u32 pages, positions, split, members, count;
};

template <u32 D>
__device__ __forceinline__ void decode_attention(float* partial, const bf16* qkv, const bf16* keys, const bf16* values,
                                                 const u32* pages, const Item* items, const u32* members,
                                                 const u32* parts_first, u32 heads, u32 groups, float scale) {
    SHARED_DYNAMIC(memory);
    // Queries; then two stages of a page's keys and values for each warp. The results lie over them.
    bf16* q = reinterpret_cast<bf16*>(memory);
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    bf16* k = q + PAGE * D + warp * 4 * PAGE * D;
    bf16* v = k + 2 * PAGE * D;
    Item item = items[blockIdx.x];
    u32 group = blockIdx.y, ratio = heads / groups, count = (item.positions + PAGE - 1) / PAGE;
    u64 row = u64(heads + 2 * groups) * D;
    auto fetch = [&](u32 page, u32 stage) {
        u64 at = (u64(pages[item.pages + page]) * groups + group) * PAGE * D;
        u32 valid = item.positions - page * PAGE;
        copy_tile<D, PAGE, WARP>(k + stage * PAGE * D, keys + at, D, valid, lane);
        copy_tile<D, PAGE, WARP>(v + stage * PAGE * D, values + at, D, valid, lane);
    };
    for (u32 i = threadIdx.x; i < PAGE * D / 8; i += 128) {
        u32 r = i / (D / 8), c = i % (D / 8);
        bool there = r < item.count * ratio;
        const bf16* from = qkv;
        if (there) from += members[item.members + r / ratio] * row + (group * ratio + r % ratio) * D + c * 8;
        cp_async(chunk_at<D>(q, r, c), from, there);
    }
    if (warp < count) fetch(warp, 0);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    float o[D / 8][4] = {};
    Running softmax;
    for (u32 page = warp, stage = 0; page < count; page += 4, stage ^= 1) {
        if (page + 4 < count) fetch(page + 4, stage ^ 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncwarp();
        float s[2][4] = {};
        multiply_rows<D>(s, q, 0, k + stage * PAGE * D);
        for (u32 n = 0; n < 2; ++n)
            for (u32 i = 0; i < 4; ++i)
                if (page * PAGE + n * 8 + 2 * t + i % 2 >= item.positions) s[n][i] = -INF;
        softmax.take(s, o, scale * LOG2E);
        multiply_columns<D>(o, s, v + stage * PAGE * D);
        __syncwarp();
    }
    cp_async_wait<0>();
    softmax.finish();
    __syncthreads();

    // Four results [16, D], their tops and totals [4, 16].
    float* results = reinterpret_cast<float*>(memory);
    float* tops = results + 4 * PAGE * D;
    float* totals = tops + 4 * PAGE;
    for (u32 half = 0; half < 2; ++half) {
        u32 r = g + half * 8;
        for (u32 n = 0; n < D / 8; ++n) {
            float* to = results + (warp * PAGE + r) * D + n * 8 + 2 * t;
            to[0] = o[n][2 * half];
            to[1] = o[n][2 * half + 1];
        }
        if (t == 0) {
            tops[warp * PAGE + r] = softmax.top[half];
            totals[warp * PAGE + r] = softmax.total[half];
        }
    }
    __syncthreads();
    // Read again: in registers all along they would push others out.
    item = items[blockIdx.x];
    for (u32 i = threadIdx.x; i < item.count * ratio * D; i += 128) {
        u32 r = i / D, c = i % D;
        float top = tops[r];
        for (u32 w = 1; w < 4; ++w) top = Max::of(top, tops[w * PAGE + r]);
        float sum = 0, total = 0;
        for (u32 w = 0; w < 4; ++w) {
            float weight = exp2_fast(tops[w * PAGE + r] - top);
            sum += results[(w * PAGE + r) * D + c] * weight;
            total += totals[w * PAGE + r] * weight;
        }
        u32 part = parts_first[members[item.members + r / ratio]] + item.split;
        float* to = partial + (u64(part) * heads + group * ratio + r % ratio) * (D + 2);
        to[c] = sum;
        if (c == 0) {
            to[D] = top;
            to[D + 1] = total;
        }
    }
}

// One block a sequence and head, one thread a channel.
template <u32 D>
__device__ __forceinline__ void decode_attention_join(bf16* out, const float* partial, const u32* parts_first,
                                                      u32 heads) {
    u32 sequence = blockIdx.x, head = blockIdx.y, c = threadIdx.x;
    u32 first = parts_first[sequence], end = parts_first[sequence + 1];
    float top = -INF, sum = 0, total = 0;
    for (u32 part = first; part < end; ++part) top = Max::of(top, partial[(u64(part) * heads + head) * (D + 2) + D]);
    for (u32 part = first; part < end; ++part) {
        const float* from = partial + (u64(part) * heads + head) * (D + 2);
        float weight = exp2_fast(from[D] - top);
        sum += from[c] * weight;
        total += from[D + 1] * weight;
    }
    out[(u64(sequence) * heads + head) * D + c] = to_bf16(sum / total);
}

// Copies keys and values of each row of qkv to slots[row] = 16 page + position in the page;
// 0xffffffff: nowhere. Serves prompts and new tokens alike.
__device__ __forceinline__ void append(bf16* keys, bf16* values, const bf16* qkv, const u32* slots, u32 rows,
                                             u32 heads, u32 groups, u32 dim) {
    u32 chunks = dim / 8;
    u64 i = global_thread();
    if (i >= u64(rows) * groups * chunks) return;
    u32 c = u32(i % chunks) * 8, group = u32(i / chunks % groups), r = u32(i / chunks / groups), slot = slots[r];
    if (slot == 0xffffffffu) return;
    const bf16* from = qkv + (u64(r) * (heads + 2 * groups) + heads + group) * dim + c;
    u64 to = ((u64(slot / PAGE) * groups + group) * PAGE + slot % PAGE) * dim + c;
    store(keys + to, load(from));
    store(values + to, load(from + u64(groups) * dim));
}

#define INSTANCES(D)                                                                                         \
    KERNEL(128, decode_attention_##D,                                                                        \
           (float* partial, const bf16* qkv, const bf16* keys, const bf16* values, const u32* pages,         \
            const Item* items, const u32* members, const u32* parts_first, u32 heads, u32 groups, float scale), \
           decode_attention<D>(partial, qkv, keys, values, pages, items, members, parts_first, heads, groups, scale)) \
    KERNEL(D, decode_attention_join_##D,                                                                     \
           (bf16 * out, const float* partial, const u32* parts_first, u32 heads),                            \
           decode_attention_join<D>(out, partial, parts_first, heads))
INSTANCES(64)
INSTANCES(128)
KERNEL(256, cache_append,
       (bf16 * keys, bf16* values, const bf16* qkv, const u32* slots, u32 rows, u32 heads, u32 groups, u32 dim),
       append(keys, values, qkv, slots, rows, heads, groups, dim))
