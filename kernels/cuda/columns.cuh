// The second stage of a sum over rows: partial [blocks, C] in fp32, added up block by block in
// order, and to what `to` [C] holds.
#pragma once
#include "cuda/device.cuh"

template <class T>
__device__ __forceinline__ void add_columns(T* to, const float* partial, u32 blocks, u32 cols) {
    u32 c = u32(global_thread());
    if (c >= cols) return;
    float sum = to_float(to[c]);
    u32 b = 0;
    for (; b + 8 <= blocks; b += 8) {
        float part[8];
        for (u32 j = 0; j < 8; ++j) part[j] = partial[u64(b + j) * cols + c];
        for (u32 j = 0; j < 8; ++j) sum += part[j];
    }
    for (; b < blocks; ++b) sum += partial[u64(b) * cols + c];
    to[c] = from_float<T>(sum);
}
