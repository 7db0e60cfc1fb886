// Rows picked out of a matrix, y[i] = x[rows[i]], and put back, dx[rows[i]] = dy[i], other rows 0.
//
// x, dx [T, C]; y, dy [N, C]; C a multiple of 16 bytes. The backward takes the inverse of `rows`:
// inverse[t] is i, or 0xffffffff where no row was picked, so that dx is written once.
//
// Bound: 2C values a row (4C bytes in bf16), no arithmetic.
#include "cuda/device.cuh"

template <class T>
__device__ __forceinline__ void gather(T* y, const T* x, const u32* rows, u32 count, u32 cols) {
    u32 packs = cols / Pack<T>::N;
    u64 i = global_thread();
    if (i >= u64(count) * packs) return;
    u32 row = u32(i / packs), c = u32(i % packs) * Pack<T>::N, from = rows[row];
    Pack<T> pack = {};
    if (from != 0xffffffffu) pack = load(x + u64(from) * cols + c);
    store(y + u64(row) * cols + c, pack);
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(256, gather_##suffix, (T * y, const T* x, const u32* rows, u32 count, u32 cols),                  \
           gather(y, x, rows, count, cols))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)
