// Rotary position embedding in place: channel i of a head is paired with channel i + D/2,
//   (lo, hi) <- (lo cos - hi sin, hi cos + lo sin), the backward with sin negated.
//
// qkv [T, row]: the first `heads` heads of D channels (queries and keys) of each row are rotated by
// the angle of position positions[t]; cos, sin [P, D/2] fp32. D/2 is a multiple of 16 bytes.
//
// Bound: 2 (H + G) D values a token (4 (H + G) D bytes in bf16), 3 FLOPs a value; the tables stay in cache.
#include "cuda/device.cuh"

template <class T>
__device__ __forceinline__ void rope(T* qkv, const u32* positions, const float* cosines, const float* sines, u32 rows,
                                     u32 row, u32 heads, u32 dim, float sign) {
    constexpr u32 N = Pack<T>::N;
    u32 half = dim / 2, packs = half / N;
    u64 i = global_thread();
    if (i >= u64(rows) * heads * packs) return;
    u32 c = u32(i % packs) * N, head = u32(i / packs % heads), t = u32(i / packs / heads);
    T* at = qkv + u64(t) * row + head * dim + c;
    u64 angle = u64(positions[t]) * half + c;
    Pack<T> low = load(at), high = load(at + half);
    for (u32 k = 0; k < N; k += 4) {
        Pack<float> cos4 = load(cosines + angle + k), sin4 = load(sines + angle + k);
        for (u32 j = 0; j < 4; ++j) {
            float a = to_float(low.v[k + j]), b = to_float(high.v[k + j]), s = sin4.v[j] * sign;
            low.v[k + j] = from_float<T>(a * cos4.v[j] - b * s);
            high.v[k + j] = from_float<T>(b * cos4.v[j] + a * s);
        }
    }
    store(at, low);
    store(at + half, high);
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(256, rope_##suffix,                                                                               \
           (T * qkv, const u32* positions, const float* cosines, const float* sines, u32 rows, u32 row,      \
            u32 heads, u32 dim, float sign),                                                                 \
           rope(qkv, positions, cosines, sines, rows, row, heads, dim, sign))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)
