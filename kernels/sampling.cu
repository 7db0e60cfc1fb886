// The next token of each row of logits: temperature, then top-k, then top-p, by inverse transform
// of one uniform number, Philox(keys[row], counters[row]), as shared/random draws it for the CPU.
//
// logits [R, stride], the first V of a row used; options [R] or [1]; keys, counters [R] u64;
// out [R]: token, log-probability under the model (temperature 1, all tokens) and under the
// distribution drawn from.
//
// Weights e^((l - max)/tau) are integers in units of 2^-40, so that masses add up to the same bits
// in any order and histograms may use atomics. The tokens stand in one order, likelier first and
// lower id first among equals; top-k, top-p and the draw among them are then one question, "which
// token takes the running sum beyond a goal", answered by a radix search over four bytes of the
// logit. Without top-k and top-p the draw runs in the order of ids, as on the CPU.
//
// Bound: V values a row (2V bytes in bf16); 4 passes plain, up to 17 with top-k and top-p, from cache
// after the first; one exponential a value and pass.
#include "cuda/philox.cuh"

// The layout of the host's `Choice` and `Drawn`.
struct Options {
    float temperature;
    u32 top_k;
    float top_p;
};
struct Drawn {
    u32 token;
    float logprob, sampling_logprob;
};

constexpr float UNIT = 1099511627776.0f;

// Unsigned integers in the order of the floats.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

template <class T> struct Row {
    const T* logits;
    u32 vocabulary;
    float top, inverse;
    __device__ __forceinline__ float logit(u32 i) const { return to_float(logits[i]); }
    __device__ __forceinline__ u64 weight(float l) const { return u64(__expf((l - top) * inverse) * UNIT); }

    // f(id, logit) for the ids of this thread.
    template <class F> __device__ __forceinline__ void each(F f) const {
        constexpr u32 N = Pack<T>::N;
        for (u32 c = threadIdx.x * N; c < vocabulary; c += blockDim.x * N) {
            Pack<T> part = load(logits + c);
            for (u32 k = 0; k < N; ++k)
                if (c + k < vocabulary) f(c + k, to_float(part.v[k]));
        }
    }
};

// The first id at which the running sum of measure(logit), in the order of ids, exceeds `goal`.
// Each warp sums a stretch of ids; the one where the goal lies walks its stretch once more, a pack a
// lane and step.
template <class T, class F>
__device__ __forceinline__ u32 find(const Row<T>& row, u64* scratch, u64 goal, F measure) {
    constexpr u32 N = Pack<T>::N, STEP = WARP * N;
    u32 warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 stretch = ((row.vocabulary + warps - 1) / warps + STEP - 1) / STEP * STEP;
    u32 first = warp * stretch + lane * N, end = min((warp + 1) * stretch, row.vocabulary);
    // f(id, measure) for the ids of the pack at c; only those below `end` count.
    auto pack_at = [&](u32 c, auto f) {
        if (c >= end) return;
        Pack<T> pack = load(row.logits + c);
#pragma unroll
        for (u32 k = 0; k < N; ++k)
            if (c + k < end) f(c + k, measure(to_float(pack.v[k])));
    };
    u64 sum = 0;
#pragma unroll 2
    for (u32 c = first; c < end; c += STEP) pack_at(c, [&](u32, u64 m) { sum += m; });
    sum = warp_reduce<Sum>(sum);
    if (lane == 0) scratch[warp] = sum;
    __syncthreads();
    u64 before = 0;
    for (u32 w = 0; w < warp; ++w) before += scratch[w];
    __syncthreads();
    if (before <= goal && goal < before + sum) {
        for (u32 c = first;; c += STEP) {
            u64 mine = 0;
            pack_at(c, [&](u32, u64 m) { mine += m; });
            u64 running = mine;
            for (u32 offset = 1; offset < WARP; offset *= 2) {
                u64 lower = __shfl_up_sync(FULL, running, offset);
                if (lane >= offset) running += lower;
            }
            u32 beyond = __ballot_sync(FULL, before + running > goal);
            if (beyond) {
                if (lane == u32(__ffs(i32(beyond)) - 1)) {
                    // The last id before which the sum is not beyond the goal.
                    u64 sum_before = before + running - mine;
                    u32 found = c;
                    pack_at(c, [&](u32 id, u64 m) {
                        if (sum_before <= goal) found = id;
                        sum_before += m;
                    });
                    scratch[0] = found;
                }
                break;
            }
            before += __shfl_sync(FULL, running, WARP - 1);
        }
    }
    __syncthreads();
    u32 found = u32(scratch[0]);
    __syncthreads();
    return found;
}

// Where the running sum in the order of likelihood exceeds a goal: at the `rank`-th (from 0) token
// of the logit whose ordered bits are `key`; `above`: the measure of all likelier logits.
struct Place {
    u32 key;
    u64 above, rank;
};

// Measure 1 a token if `count`, else its weight. `goal` is below the sum over all tokens.
template <class T>
__device__ __forceinline__ Place descend(const Row<T>& row, u64* bins, u64 goal, bool count) {
    u32 prefix = 0, mask = 0;
    u64 above = 0;
    for (u32 shift = 32; shift > 0;) {
        shift -= 8;
        for (u32 b = threadIdx.x; b < 256; b += blockDim.x) bins[b] = 0;
        __syncthreads();
        // A run of values in one bin is added once: most logits share their highest byte.
        u32 last = 0;
        u64 run = 0;
        row.each([&](u32, float l) {
            u32 key = ordered(l);
            if ((key & mask) != prefix) return;
            u32 bin = key >> shift & 255u;
            if (bin != last) {
                if (run) atomicAdd(bins + last, run);
                run = 0;
                last = bin;
            }
            run += count ? 1 : row.weight(l);
        });
        if (run) atomicAdd(bins + last, run);
        __syncthreads();
        // The first warp searches, eight bins a lane, the highest bins in lane 0.
        if (threadIdx.x < WARP) {
            u64 mine = 0;
            for (u32 j = 0; j < 8; ++j) mine += bins[255 - threadIdx.x * 8 - j];
            u64 running = mine;
            for (u32 offset = 1; offset < WARP; offset *= 2) {
                u64 lower = __shfl_up_sync(FULL, running, offset);
                if (threadIdx.x >= offset) running += lower;
            }
            u64 before = above + running - mine;
            u32 bin = 0xffffffffu;
            if (before <= goal && goal < before + mine) {
                bin = 255 - threadIdx.x * 8;
                while (goal >= before + bins[bin]) before += bins[bin--];
            }
            __syncwarp();
            if (bin != 0xffffffffu) {
                bins[256] = bin;
                bins[257] = before;
            }
        }
        __syncthreads();
        prefix |= u32(bins[256]) << shift;
        mask |= 255u << shift;
        above = bins[257];
        __syncthreads();
    }
    u32 bits = prefix & 0x80000000u ? prefix & 0x7fffffffu : ~prefix;
    u64 each = count ? 1 : row.weight(__uint_as_float(bits));
    return {prefix, above, (goal - above) / each};
}

// floor(share / 2^24 * total) for a share below 2^24.
__device__ __forceinline__ u64 part_of(u64 total, u32 share) {
    return (total >> 24) * share + ((total & 0xffffffu) * share >> 24);
}

template <class T>
__device__ __forceinline__ void sample(Drawn* out, const T* all, const Options* options, u32 many, const u64* keys,
                                       const u64* counters, u32 vocabulary, u32 stride) {
    SHARED(u64, bins, 258);
    SHARED(float, floats, 32);
    Row<T> row = {all + u64(blockIdx.x) * stride, vocabulary, 0.0f, 1.0f};
    Options choice = options[many ? blockIdx.x : 0];
    float top = -INF;
    row.each([&](u32, float l) { top = l > top ? l : top; });
    row.top = top = block_reduce<Max>(top, floats);
    float total = 0;
    row.each([&](u32, float l) { total += __expf(l - top); });
    float log_total = logf(block_reduce<Sum>(total, floats));
    u32 token;
    float sampling_logprob = 0;
    if (choice.temperature == 0.0f) {
        token = find(row, bins, 0, [&](float l) { return u64(l >= top); });
    } else {
        row.inverse = 1.0f / choice.temperature;
        Philox random = philox(keys[blockIdx.x], counters[blockIdx.x], 0);
        u32 uniform = random.v[1] >> 8;
        u64 kept = 0;
        row.each([&](u32, float l) { kept += row.weight(l); });
        kept = block_reduce<Sum>(kept, bins);
        bool few = choice.top_k > 0 && choice.top_k < vocabulary;
        if (few) {
            Place last = descend(row, bins, choice.top_k - 1, true);
            kept = 0;
            u64 ties = 0;
            row.each([&](u32, float l) {
                u32 key = ordered(l);
                if (key > last.key) kept += row.weight(l);
                if (key == last.key) ties = row.weight(l);
            });
            kept = block_reduce<Sum>(kept, bins);
            kept += (last.rank + 1) * block_reduce<Max>(ties, bins);
        }
        if (choice.top_p < 1.0f) {
            // The least prefix whose mass is at least p of what was kept.
            u64 goal = u64(double(choice.top_p) * double(kept));
            Place last = descend(row, bins, goal > 0 ? goal - 1 : 0, false);
            u64 ties = 0;
            row.each([&](u32, float l) {
                if (ordered(l) == last.key) ties = row.weight(l);
            });
            kept = last.above + (last.rank + 1) * block_reduce<Max>(ties, bins);
        }
        u64 goal = part_of(kept, uniform);
        if (few || choice.top_p < 1.0f) {
            Place drawn = descend(row, bins, goal, false);
            token = find(row, bins, drawn.rank, [&](float l) { return u64(ordered(l) == drawn.key); });
        } else {
            token = find(row, bins, goal, [&](float l) { return row.weight(l); });
        }
        sampling_logprob = (row.logit(token) - top) * row.inverse - logf(float(kept) / UNIT);
    }
    if (threadIdx.x == 0) out[blockIdx.x] = {token, row.logit(token) - top - log_total, sampling_logprob};
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(512, sampling_##suffix,                                                                           \
           (Drawn * out, const T* logits, const Options* options, u32 many, const u64* keys,                 \
            const u64* counters, u32 vocabulary, u32 stride),                                                \
           sample(out, logits, options, many, keys, counters, vocabulary, stride))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)
