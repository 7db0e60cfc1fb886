// The classifier's head on a chunk of logits l, with z = l / tau:
//   lse = ln sum e^z, logp = z[target] - lse, entropy = lse - sum p z, p = e^(z - lse)
// and the gradient in place, dz being the loss's derivative by log sum e^z beside that by logp:
//   dl = ((1[target] - p) dlogp + p dz) / tau.
// The gradient of the head's weights is summed over the chunks in fp32; `classifier_fold` adds that to
// the bf16 gradient and clears it: g += sum, sum = 0.
//
// logits [R, stride], the first V of a row used, stride a multiple of 16 bytes; targets [R] below V;
// rows [R, 3] fp32: logp, entropy (nats), lse; dlogp, dz [R] fp32 (dz may be null: 0); g, sum [n], n a
// multiple of 8. A block owns a row. Forward is one
// pass: each thread keeps a running maximum and rescales its sums when it grows.
//
// Bound: V values a row forward (2V bytes in bf16), 2V backward; one exponential a value; 12 bytes a
// value folded.
#include "cuda/device.cuh"

// Sums of e^(z - top) and z' e^z', z' = z - top. A top of -infinity stands for no value.
struct Partition {
    float top, total, weighted;
};

__device__ __forceinline__ Partition merge(Partition a, Partition b) {
    if (!(a.top >= b.top)) {
        Partition swap = a;
        a = b;
        b = swap;
    }
    if (b.total == 0.0f) return a;
    float shift = b.top - a.top, scale = __expf(shift);
    return {a.top, a.total + b.total * scale, a.weighted + (b.weighted + b.total * shift) * scale};
}

template <class T>
__device__ __forceinline__ void classifier_forward(float* rows, const T* logits, const u32* targets, u32 vocabulary,
                                                   u32 stride, float inverse) {
    constexpr u32 N = Pack<T>::N;
    SHARED(float, tops, 32);
    SHARED(float, totals, 32);
    SHARED(float, weights, 32);
    const T* l = logits + u64(blockIdx.x) * stride;
    Partition mine = {-INF, 0.0f, 0.0f};
    for (u32 c = threadIdx.x * N; c < vocabulary; c += blockDim.x * N) {
        Pack<T> part = load(l + c);
        float z[N], top = -INF;
        for (u32 k = 0; k < N; ++k) {
            z[k] = c + k < vocabulary ? to_float(part.v[k]) * inverse : -INF;
            top = z[k] > top ? z[k] : top;
        }
        if (top == -INF) continue;
        Partition pack = {top, 0.0f, 0.0f};
        for (u32 k = 0; k < N; ++k) {
            float x = z[k] - top, e = __expf(x);
            pack.total += e;
            // 0 where the logit is -infinity.
            if (e > 0.0f) pack.weighted += x * e;
        }
        mine = merge(mine, pack);
    }
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
        Partition other = {__shfl_xor_sync(FULL, mine.top, offset), __shfl_xor_sync(FULL, mine.total, offset),
                           __shfl_xor_sync(FULL, mine.weighted, offset)};
        mine = merge(mine, other);
    }
    u32 warp = threadIdx.x / WARP;
    if (threadIdx.x % WARP == 0) {
        tops[warp] = mine.top;
        totals[warp] = mine.total;
        weights[warp] = mine.weighted;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 w = 1; w < blockDim.x / WARP; ++w) mine = merge(mine, {tops[w], totals[w], weights[w]});
        float log_total = logf(mine.total), at = to_float(l[targets[blockIdx.x]]) * inverse;
        float* row = rows + u64(blockIdx.x) * 3;
        row[0] = at - mine.top - log_total;
        row[1] = log_total - mine.weighted / mine.total;
        row[2] = mine.top + log_total;
    }
}

// Blocks of 16 bytes a thread in x, a row in y.
template <class T>
__device__ __forceinline__ void classifier_backward(T* logits, const float* rows, const float* dlogp, const float* dz,
                                                    const u32* targets, u32 vocabulary, u32 stride, float inverse) {
    constexpr u32 N = Pack<T>::N;
    u32 c = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (c >= stride) return;
    u32 row = blockIdx.x, target = targets[row];
    float g = dlogp[row] * inverse, d = dz ? dz[row] * inverse : 0.0f, lse = rows[u64(row) * 3 + 2];
    T* at = logits + u64(row) * stride + c;
    Pack<T> part = load(at);
    for (u32 k = 0; k < N; ++k) {
        float p = __expf(to_float(part.v[k]) * inverse - lse);
        // The padding's gradient is 0, whatever stood there.
        part.v[k] = from_float<T>(c + k < vocabulary ? ((c + k == target ? 1.0f : 0.0f) - p) * g + p * d : 0.0f);
    }
    store(at, part);
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(512, classifier_forward_##suffix,                                                                 \
           (float* rows, const T* logits, const u32* targets, u32 vocabulary, u32 stride, float inverse),    \
           classifier_forward(rows, logits, targets, vocabulary, stride, inverse))                           \
    KERNEL(256, classifier_backward_##suffix,                                                                \
           (T * logits, const float* rows, const float* dlogp, const float* dz, const u32* targets,          \
            u32 vocabulary, u32 stride, float inverse),                                                      \
           classifier_backward(logits, rows, dlogp, dz, targets, vocabulary, stride, inverse))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)

__device__ __forceinline__ void fold_sum(bf16* g, float* sum, u64 n) {
    u64 i = global_thread() * 8;
    if (i >= n) return;
    Pack<bf16> to = load(g + i);
    for (u32 half = 0; half < 2; ++half) {
        Pack<float> part = load(sum + i + half * 4);
        for (u32 k = 0; k < 4; ++k)
            to.v[half * 4 + k] = to_bf16(to_float(to.v[half * 4 + k]) + part.v[k]);
        store(sum + i + half * 4, Pack<float>{});
    }
    store(g + i, to);
}

KERNEL(256, classifier_fold, (bf16 * g, float* sum, u64 n), fold_sum(g, sum, n))
