// A bias row added to every row, y += b, and its gradient db += sum over t of dy[t].
//
// y, dy [T, N]; b, db [N]; N a multiple of 16 bytes. The gradient has two stages: block i sums
// rows i, i + blocks, ... into partial [blocks, N], then `bias_columns` adds the blocks in order.
//
// Bound: 2N values a token forward (4N bytes in bf16), N backward; an addition each.
#include "cuda/columns.cuh"

template <class T> __device__ __forceinline__ void bias_forward(T* y, const T* b, u32 rows, u32 cols) {
    u32 packs = cols / Pack<T>::N;
    u64 i = global_thread();
    if (i >= u64(rows) * packs) return;
    Pack<T> sum = load(y + i * Pack<T>::N), add = load(b + i % packs * Pack<T>::N);
    for (u32 k = 0; k < Pack<T>::N; ++k) sum.v[k] = from_float<T>(to_float(sum.v[k]) + to_float(add.v[k]));
    store(y + i * Pack<T>::N, sum);
}

template <class T>
__device__ __forceinline__ void bias_backward(float* partial, const T* dy, u32 rows, u32 cols) {
    constexpr u32 N = Pack<T>::N;
    u32 c = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (c >= cols) return;
    float sum[N] = {};
    for (u32 t = blockIdx.x; t < rows; t += gridDim.x) {
        Pack<T> part = load(dy + u64(t) * cols + c);
        for (u32 k = 0; k < N; ++k) sum[k] += to_float(part.v[k]);
    }
    store_floats(partial + u64(blockIdx.x) * cols + c, sum);
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(256, bias_forward_##suffix, (T * y, const T* b, u32 rows, u32 cols), bias_forward(y, b, rows, cols)) \
    KERNEL(256, bias_backward_##suffix, (float* partial, const T* dy, u32 rows, u32 cols),                   \
           bias_backward(partial, dy, rows, cols))                                                           \
    KERNEL(256, bias_columns_##suffix, (T * db, const float* partial, u32 blocks, u32 cols),                 \
           add_columns(db, partial, blocks, cols))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)
