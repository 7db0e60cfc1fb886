// Token embedding: y[t] = table[tokens[t]], and its gradient
// dtable[id] += sum of dy[t] over the positions t of that id.
//
// y, dy [T, C]; table, dtable [V, C]; C a multiple of 16 bytes. The backward takes the positions
// sorted by token (the host knows the tokens): run r is the positions order[starts[r]] ..
// order[starts[r + 1] - 1], ascending, of token ids[r]. So no atomics, and each sum runs in the
// order of the positions.
//
// Bound: 2C values read and written a token (4C bytes in bf16), no arithmetic.
#include "cuda/device.cuh"

template <class T>
__device__ __forceinline__ void embedding_forward(T* y, const T* table, const u32* tokens, u32 rows, u32 cols) {
    u32 packs = cols / Pack<T>::N;
    u64 i = global_thread();
    if (i >= u64(rows) * packs) return;
    u32 t = u32(i / packs), c = u32(i % packs) * Pack<T>::N;
    store(y + u64(t) * cols + c, load(table + u64(tokens[t]) * cols + c));
}

// One run a block in y, 16 bytes of channels a thread in x.
template <class T>
__device__ __forceinline__ void embedding_backward(T* dtable, const T* dy, const u32* ids, const u32* starts,
                                                   const u32* order, u32 cols) {
    constexpr u32 N = Pack<T>::N;
    u32 c = (blockIdx.y * blockDim.x + threadIdx.x) * N;
    if (c >= cols) return;
    u32 run = blockIdx.x, end = starts[run + 1];
    T* to = dtable + u64(ids[run]) * cols + c;
    float sum[N];
    Pack<T> old = load(to);
    for (u32 k = 0; k < N; ++k) sum[k] = to_float(old.v[k]);
    // Four rows in flight: a frequent token has thousands.
    u32 i = starts[run];
    for (; i + 4 <= end; i += 4) {
        Pack<T> part[4];
        for (u32 j = 0; j < 4; ++j) part[j] = load(dy + u64(order[i + j]) * cols + c);
        for (u32 j = 0; j < 4; ++j)
            for (u32 k = 0; k < N; ++k) sum[k] += to_float(part[j].v[k]);
    }
    for (; i < end; ++i) {
        Pack<T> part = load(dy + u64(order[i]) * cols + c);
        for (u32 k = 0; k < N; ++k) sum[k] += to_float(part.v[k]);
    }
    for (u32 k = 0; k < N; ++k) old.v[k] = from_float<T>(sum[k]);
    store(to, old);
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(256, embedding_forward_##suffix, (T * y, const T* table, const u32* tokens, u32 rows, u32 cols),  \
           embedding_forward(y, table, tokens, rows, cols))                                                  \
    KERNEL(256, embedding_backward_##suffix,                                                                 \
           (T * dtable, const T* dy, const u32* ids, const u32* starts, const u32* order, u32 cols),         \
           embedding_backward(dtable, dy, ids, starts, order, cols))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)
