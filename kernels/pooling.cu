// One vector a document from the hidden states of its tokens: their mean, or the last one's.
//
// y [D, C] fp32; x [T, C]; starts [D + 1]. An empty document gives zeros. Tokens are summed in
// order by one thread a 16-byte pack of channels.
//
// Bound: C values read a token (2C bytes in bf16).
#include "cuda/device.cuh"

template <class T, bool MEAN>
__device__ __forceinline__ void pooling(float* y, const T* x, const u32* starts, u32 cols) {
    constexpr u32 N = Pack<T>::N;
    u32 c = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (c >= cols) return;
    u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float sum[N] = {};
    if (!MEAN && end > first) first = end - 1;
    u32 t = first;
    for (; t + 4 <= end; t += 4) {
        Pack<T> part[4];
        for (u32 j = 0; j < 4; ++j) part[j] = load(x + u64(t + j) * cols + c);
        for (u32 j = 0; j < 4; ++j)
            for (u32 k = 0; k < N; ++k) sum[k] += to_float(part[j].v[k]);
    }
    for (; t < end; ++t) {
        Pack<T> part = load(x + u64(t) * cols + c);
        for (u32 k = 0; k < N; ++k) sum[k] += to_float(part.v[k]);
    }
    float scale = 1.0f / float(end > first ? end - first : 1);
    for (u32 k = 0; k < N; ++k) sum[k] *= scale;
    store_floats(y + u64(blockIdx.x) * cols + c, sum);
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(256, pooling_mean_##suffix, (float* y, const T* x, const u32* starts, u32 cols),                  \
           (pooling<T, true>(y, x, starts, cols)))                                                           \
    KERNEL(256, pooling_last_##suffix, (float* y, const T* x, const u32* starts, u32 cols),                  \
           (pooling<T, false>(y, x, starts, cols)))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)
