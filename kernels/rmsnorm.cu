// RMSNorm fused with the addition of the residual branch:
//   s = x + b (b may be null: s = x, not written), rstd = 1 / sqrt(mean(s^2) + eps), y = s rstd w
// and its gradient, with h = s rstd:
//   dx += rstd (w dy - h mean(h w dy)), dw += sum over t of h dy
//
// x, b, s, y, dx, dy [T, C]; w, dw [C]; rstd [T] fp32; C a multiple of 16 bytes, at most 256 threads
// of `PACKS` packs. A block owns a row and keeps it in registers between the two passes. The sum s
// is rounded to T before the norm, since that is what the backward will read.
//
// Bound, in values a token: forward 4C with b (8C bytes in bf16), 2C without; backward 4C. dw takes
// two stages: block i sums rows i, i + blocks, ... into partial [blocks, C], then
// `rmsnorm_columns` adds the blocks in order.
#include "cuda/columns.cuh"

template <class T, u32 PACKS>
__device__ __forceinline__ void rmsnorm_forward(T* s, T* y, float* rstd, const T* x, const T* b, const T* w, u32 cols,
                                                float eps) {
    constexpr u32 N = Pack<T>::N;
    SHARED(float, scratch, 32);
    u64 row = u64(blockIdx.x) * cols;
    Pack<T> part[PACKS];
    float squares = 0;
#pragma unroll
    for (u32 i = 0; i < PACKS; ++i) {
        u32 c = (i * blockDim.x + threadIdx.x) * N;
        if (c >= cols) continue;
        part[i] = load(x + row + c);
        if (b) {
            Pack<T> branch = load(b + row + c);
            for (u32 k = 0; k < N; ++k)
                part[i].v[k] = from_float<T>(to_float(part[i].v[k]) + to_float(branch.v[k]));
            store(s + row + c, part[i]);
        }
        for (u32 k = 0; k < N; ++k) squares += to_float(part[i].v[k]) * to_float(part[i].v[k]);
    }
    float scale = rsqrtf(block_reduce<Sum>(squares, scratch) / float(cols) + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = scale;
#pragma unroll
    for (u32 i = 0; i < PACKS; ++i) {
        u32 c = (i * blockDim.x + threadIdx.x) * N;
        if (c >= cols) continue;
        Pack<T> weight = load(w + c);
        for (u32 k = 0; k < N; ++k)
            part[i].v[k] = from_float<T>(to_float(part[i].v[k]) * scale * to_float(weight.v[k]));
        store(y + row + c, part[i]);
    }
}

template <class T, u32 PACKS>
__device__ __forceinline__ void rmsnorm_backward(T* dx, float* partial, const T* dy, const T* x, const float* rstd,
                                                 const T* w, u32 rows, u32 cols) {
    constexpr u32 N = Pack<T>::N;
    SHARED(float, scratch, 32);
    float dw[PACKS][N] = {};
    for (u32 t = blockIdx.x; t < rows; t += gridDim.x) {
        u64 row = u64(t) * cols;
        float scale = rstd[t], mean = 0;
        Pack<T> in[PACKS], up[PACKS];
#pragma unroll
        for (u32 i = 0; i < PACKS; ++i) {
            u32 c = (i * blockDim.x + threadIdx.x) * N;
            if (c >= cols) continue;
            in[i] = load(x + row + c);
            up[i] = load(dy + row + c);
            Pack<T> weight = load(w + c);
            for (u32 k = 0; k < N; ++k) {
                float hat = to_float(in[i].v[k]) * scale, d = to_float(up[i].v[k]);
                mean += hat * to_float(weight.v[k]) * d;
                dw[i][k] += hat * d;
            }
        }
        mean = block_reduce<Sum>(mean, scratch) / float(cols);
#pragma unroll
        for (u32 i = 0; i < PACKS; ++i) {
            u32 c = (i * blockDim.x + threadIdx.x) * N;
            if (c >= cols) continue;
            Pack<T> weight = load(w + c), out = load(dx + row + c);
            for (u32 k = 0; k < N; ++k) {
                float hat = to_float(in[i].v[k]) * scale, d = to_float(weight.v[k]) * to_float(up[i].v[k]);
                out.v[k] = from_float<T>(to_float(out.v[k]) + scale * (d - hat * mean));
            }
            store(dx + row + c, out);
        }
    }
#pragma unroll
    for (u32 i = 0; i < PACKS; ++i) {
        u32 c = (i * blockDim.x + threadIdx.x) * N;
        if (c >= cols) continue;
        store_floats(partial + u64(blockIdx.x) * cols + c, dw[i]);
    }
}

#define INSTANCES(T, suffix, PACKS)                                                                          \
    KERNEL(256, rmsnorm_forward_##suffix##_##PACKS,                                                          \
           (T * s, T * y, float* rstd, const T* x, const T* b, const T* w, u32 cols, float eps),             \
           (rmsnorm_forward<T, PACKS>(s, y, rstd, x, b, w, cols, eps)))                                      \
    KERNEL(256, rmsnorm_backward_##suffix##_##PACKS,                                                         \
           (T * dx, float* partial, const T* dy, const T* x, const float* rstd, const T* w, u32 rows, u32 cols), \
           (rmsnorm_backward<T, PACKS>(dx, partial, dy, x, rstd, w, rows, cols)))
// 2048, 4096 and 8192 channels in bf16; half as many in fp32.
INSTANCES(bf16, bf16, 1)
INSTANCES(bf16, bf16, 2)
INSTANCES(bf16, bf16, 4)
INSTANCES(float, f32, 1)
INSTANCES(float, f32, 2)
INSTANCES(float, f32, 4)
KERNEL(256, rmsnorm_columns_bf16, (bf16 * dw, const float* partial, u32 blocks, u32 cols),
       add_columns(dw, partial, blocks, cols))
KERNEL(256, rmsnorm_columns_f32, (float* dw, const float* partial, u32 blocks, u32 cols),
       add_columns(dw, partial, blocks, cols))
