// The global norm of all gradients, sqrt(sum g^2), and the factor that clips it, in two stages of
// fixed order: a block sums 16,384 values of one tensor into partial[i] (fp64); then one block sums
// all partial sums.
//
// g [n], n a multiple of 16 bytes; out [2] fp32: the norm, and the factor for AdamW: 1, or
// max_norm / norm where the norm is greater, or -1 where it is not finite (the step is skipped).
//
// Bound: n values read (2 bytes a parameter in bf16), 2 FLOPs each.
#include "cuda/device.cuh"

constexpr u32 BLOCK_VALUES = 16384;

template <class T> __device__ __forceinline__ void squares(double* partial, const T* g, u64 n) {
    constexpr u32 N = Pack<T>::N;
    SHARED(double, scratch, 32);
    u64 first = u64(blockIdx.x) * BLOCK_VALUES;
    float sum = 0;
#pragma unroll 8
    for (u32 i = threadIdx.x * N; i < BLOCK_VALUES; i += blockDim.x * N) {
        if (first + i >= n) break;
        Pack<T> part = load(g + first + i);
        for (u32 k = 0; k < N; ++k) sum += to_float(part.v[k]) * to_float(part.v[k]);
    }
    double all = block_reduce<Sum>(double(sum), scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = all;
}

KERNEL(256, grad_norm_squares_bf16, (double* partial, const bf16* g, u64 n), squares(partial, g, n))
KERNEL(256, grad_norm_squares_f32, (double* partial, const float* g, u64 n), squares(partial, g, n))

__device__ __forceinline__ void finish(float* out, const double* partial, u32 count, float max_norm) {
    SHARED(double, scratch, 32);
    double sum = 0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
    sum = block_reduce<Sum>(sum, scratch);
    if (threadIdx.x != 0) return;
    double norm = sqrt(sum);
    out[0] = float(norm);
    out[1] = !(norm < 1e300) ? -1.0f : norm > max_norm ? float(max_norm / norm) : 1.0f;
}

KERNEL(1024, grad_norm_finish, (float* out, const double* partial, u32 count, float max_norm),
       finish(out, partial, count, max_norm))
