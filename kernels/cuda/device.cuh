// What every kernel starts from: integer types, bf16, 16-byte vectors, reductions. No header of a
// toolkit is needed, so NVRTC compiles a kernel from these files alone. On the CPU the same source
// is compiled with COGNATE_SHIM and shim/cuda.h stands in for the device.
#pragma once

#ifdef COGNATE_SHIM
#include "shim/cuda.h"
#else
// A block's shared memory: `SHARED` of a fixed number of values, `SHARED_DYNAMIC` as launched.
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define SHARED_DYNAMIC(name) extern __shared__ __align__(1024) unsigned char name[]
// The shim needs to be told of kernels; the compiler does not.
#define EXPORT(name)
#endif

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using i32 = int;
using u64 = unsigned long long;
using i64 = long long;

// A kernel that the host finds by its name; `threads` is the largest block it is launched with.
#define KERNEL(threads, name, parameters, call)                                                    \
    extern "C" __global__ void __launch_bounds__(threads) name parameters { call; }                \
    EXPORT(name)

constexpr u32 WARP = 32;
constexpr u32 FULL = 0xffffffffu;
#define INF __uint_as_float(0x7f800000u)

#include "cuda/ptx.cuh"

// 16 bytes: what one lane loads or stores at once.
template <class T> struct alignas(16) Pack {
    static constexpr u32 N = 16 / sizeof(T);
    T v[N];
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return to_bf16(x); }

// The same as the machine moves it.
template <class T> union PackWords {
    Pack<T> pack;
    uint4 words;
};

template <class T> __device__ __forceinline__ Pack<T> load(const T* from) {
    PackWords<T> both;
    both.words = *reinterpret_cast<const uint4*>(from);
    return both.pack;
}
// To global memory.
template <class T> __device__ __forceinline__ void store(T* to, const Pack<T>& pack) {
    PackWords<T> both;
    both.pack = pack;
    store_words(to, both.words);
}
template <u32 N> __device__ __forceinline__ void store_floats(float* to, const float (&x)[N]) {
    for (u32 i = 0; i < N; i += 4) store(to + i, Pack<float>{{x[i], x[i + 1], x[i + 2], x[i + 3]}});
}

// The index of this thread in a one-dimensional grid.
__device__ __forceinline__ u64 global_thread() { return u64(blockIdx.x) * blockDim.x + threadIdx.x; }

struct Sum {
    template <class A> __device__ __forceinline__ static A of(A a, A b) { return a + b; }
};
struct Max {
    template <class A> __device__ __forceinline__ static A of(A a, A b) { return a > b ? a : b; }
};

// A tree of fixed shape: the same order of additions in every run.
template <class Op, class A> __device__ __forceinline__ A warp_reduce(A x) {
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) x = Op::of(x, __shfl_xor_sync(FULL, x, offset));
    return x;
}

// The reduction over a block, known to all its threads. `scratch` holds a value a warp (32 at
// most); it may be used again after this returns. Warps are combined in order.
template <class Op, class A> __device__ __forceinline__ A block_reduce(A x, A* scratch) {
    x = warp_reduce<Op>(x);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();
    A all = scratch[0];
    for (u32 w = 1; w < blockDim.x / WARP; ++w) all = Op::of(all, scratch[w]);
    __syncthreads();
    return all;
}
