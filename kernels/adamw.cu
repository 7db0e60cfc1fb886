// AdamW with decoupled weight decay:
//   g' = scale g, m = b1 m + (1 - b1) g', v = b2 v + (1 - b2) g'^2,
//   w <- w (1 - lr decay) - lr (m / bias1) / (sqrt(v / bias2) + eps), then g = 0.
//
// `adamw_bf16` keeps the exact fp32 master as the bf16 weight (nearest, ties away from zero) and a
// 16-bit remainder (cuda/master.cuh). `adamw_bf16_stochastic` has no remainder and rounds the weight
// at random. Moments in bf16 are always rounded at random, since v's relative change, 1 - b2 = 1e-3,
// is below bf16's half step and nearest rounding would freeze it. The random bits are Philox (seed,
// `first` + index of the 16-byte pack, step): a function of the place alone, also where a launch is
// for a part of a tensor that begins at pack `first`. `adamw_bf16_f32` has moments in fp32.
//
// `scale` is read from device memory, where grad_norm left it; a negative one (the norm was not
// finite) skips the update and only clears the gradient.
//
// All [n]. Bound, bytes a parameter: 20 with bf16 moments (18 and the cleared gradient), 28 with
// fp32 moments, 32 all in fp32.
#include "cuda/master.cuh"
#include "cuda/philox.cuh"

// The layout of the host's `Step`.
struct Update {
    float lr, beta1, beta2, eps, weight_decay, bias1, bias2;
    u32 step;
    u64 seed, first;
};

// Up with the probability of the part that is cut off; for finite values.
__device__ __forceinline__ bf16 round_at_random(float x, u32 random) {
    return {u16((__float_as_uint(x) + (random & 0xffffu)) >> 16)};
}

template <class M> __device__ __forceinline__ M keep(float x, u32 random);
template <> __device__ __forceinline__ float keep<float>(float x, u32) { return x; }
template <> __device__ __forceinline__ bf16 keep<bf16>(float x, u32 random) { return round_at_random(x, random); }

__device__ __forceinline__ void advance(float& w, float& m, float& v, float g, const Update& u) {
    m = u.beta1 * m + (1.0f - u.beta1) * g;
    v = u.beta2 * v + (1.0f - u.beta2) * g * g;
    w = w * (1.0f - u.lr * u.weight_decay) - u.lr / u.bias1 * m / (sqrtf(v * (1.0f / u.bias2)) + u.eps);
}

// N values of M, which may be more than 16 bytes.
template <class M, u32 N> struct Few {
    Pack<M> pack[N / Pack<M>::N];
    __device__ __forceinline__ M& operator[](u32 k) { return pack[k / Pack<M>::N].v[k % Pack<M>::N]; }
    __device__ __forceinline__ void read(const M* from) {
        for (u32 p = 0; p < N / Pack<M>::N; ++p) pack[p] = load(from + p * Pack<M>::N);
    }
    __device__ __forceinline__ void write(M* to) const {
        for (u32 p = 0; p < N / Pack<M>::N; ++p) store(to + p * Pack<M>::N, pack[p]);
    }
};

// `rest` is null without remainder. n is a multiple of a pack: buffers are padded with zeros.
template <class M>
__device__ __forceinline__ void adamw_packs(bf16* w, u16* rest, bf16* g, M* m, M* v, const float* scale, u64 n,
                                           Update u) {
    constexpr u32 N = Pack<bf16>::N;
    u64 i = global_thread() * N;
    if (i >= n) return;
    float factor = *scale;
    Pack<bf16> grad = load(g + i);
    store(g + i, Pack<bf16>{});
    if (!(factor >= 0.0f)) return;
    Pack<bf16> weight = load(w + i);
    Pack<u16> remainder = {};
    if (rest) remainder = load(rest + i);
    Few<M, N> first, second;
    first.read(m + i);
    second.read(v + i);
    Philox random = philox(u.seed, u.first + i / N, u.step);
#pragma unroll
    for (u32 k = 0; k < N; ++k) {
        u32 bits = random.v[k / 2] >> (k % 2 * 16) & 0xffffu;
        float x = join_master(weight.v[k], remainder.v[k]), a = to_float(first[k]), b = to_float(second[k]);
        advance(x, a, b, to_float(grad.v[k]) * factor, u);
        // One draw serves all: each rounding is unbiased by itself.
        first[k] = keep<M>(a, ~bits);
        second[k] = keep<M>(b, bits);
        if (rest) {
            split_master(x, weight.v[k], remainder.v[k]);
        } else {
            weight.v[k] = round_at_random(x, bits >> 8 | bits << 8);
        }
    }
    store(w + i, weight);
    if (rest) store(rest + i, remainder);
    first.write(m + i);
    second.write(v + i);
}

KERNEL(256, adamw_bf16,
       (bf16 * w, u16* rest, bf16* g, bf16* m, bf16* v, const float* scale, u64 n, Update u),
       adamw_packs(w, rest, g, m, v, scale, n, u))
KERNEL(256, adamw_bf16_f32,
       (bf16 * w, u16* rest, bf16* g, float* m, float* v, const float* scale, u64 n, Update u),
       adamw_packs(w, rest, g, m, v, scale, n, u))
KERNEL(256, adamw_bf16_stochastic,
       (bf16 * w, bf16* g, bf16* m, bf16* v, const float* scale, u64 n, Update u),
       adamw_packs(w, static_cast<u16*>(nullptr), g, m, v, scale, n, u))

__device__ __forceinline__ void adamw_f32_pack(float* w, float* g, float* m, float* v, const float* scale, u64 n,
                                               Update u) {
    u64 i = global_thread() * 4;
    if (i >= n) return;
    float factor = *scale;
    Pack<float> grad = load(g + i);
    store(g + i, Pack<float>{});
    if (!(factor >= 0.0f)) return;
    Pack<float> weight = load(w + i), first = load(m + i), second = load(v + i);
    for (u32 k = 0; k < 4; ++k) advance(weight.v[k], first.v[k], second.v[k], grad.v[k] * factor, u);
    store(w + i, weight);
    store(m + i, first);
    store(v + i, second);
}

KERNEL(256, adamw_f32, (float* w, float* g, float* m, float* v, const float* scale, u64 n, Update u),
       adamw_f32_pack(w, g, m, v, scale, n, u))
