// CUDA's device language for a C++ compiler, enough of it to run the kernels of this folder on the
// CPU and to see what is wrong with them. A thread is a fiber (shim.cc); blocks run one after
// another. Shared memory is fresh for every block, filled with NaN, of exact size, so that the
// address sanitizer sees its ends. Not seen: bank conflicts, weak memory order, missing proxies' fences.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

#define SHARED(type, name, count)                                                                            \
    static char name##_site;                                                                                 \
    type* name = static_cast<type*>(shim::shared(&name##_site, sizeof(type) * (count)))
#define SHARED_DYNAMIC(name) unsigned char* name = static_cast<unsigned char*>(shim::dynamic_shared())
#define EXPORT(name)                                                                                         \
    extern "C" void launch_##name(void** arguments) { shim::call(name, arguments); }

struct uint3 {
    unsigned x, y, z;
};
using dim3 = uint3;
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace shim {

// Ends the process with a message: a kernel that does this has undefined behaviour on a device.
[[noreturn]] void fail(const char* format, ...);

void* shared(const void* site, size_t bytes);
void* dynamic_shared();

void sync_threads(int line);
// Waits for the whole warp and gives what each lane brought, 64 bytes a lane.
struct Lane {
    alignas(16) unsigned char bytes[64];
};
const Lane* exchange(unsigned mask, const void* mine, size_t bytes, int line);
unsigned lane();

// Calls a kernel with arguments as cuLaunchKernel takes them: an array of pointers to values.
template <class... A, size_t... I>
void call_each(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}
template <class... A> void call(void (*kernel)(A...), void** arguments) {
    call_each(kernel, arguments, std::index_sequence_for<A...>{});
}

inline float bits_float(uint32_t x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}
inline uint32_t float_bits(float x) {
    uint32_t y;
    memcpy(&y, &x, 4);
    return y;
}
inline float half_float(uint32_t bf16_bits) { return bits_float(bf16_bits << 16); }
inline uint16_t round_bf16(float x) {
    uint32_t bits = float_bits(x);
    if (std::isnan(x)) return uint16_t(0x7fff);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
void ldmatrix_x4(unsigned (&r)[4], const void* row, bool transposed);

// Deferred: nothing is copied before the wait that covers the group.
void cp_async(void* to, const void* from, bool valid);
void cp_async_commit();
void cp_async_wait(int unfinished);

// A warp group's product, deferred to its wait: d (+)= a b for 64 rows and 8 `tiles` columns, 16 deep.
// `registers`: the left operand of this lane, where it is not in shared memory.
struct Shared {
    const unsigned char* start;
    unsigned near, far;
};
void wgmma(float* d, unsigned tiles, Shared a, const unsigned* registers, Shared b, bool across, bool add);
void wgmma_commit();
void wgmma_wait(int unfinished);

// Barriers that count arrivals and bytes, and copies of boxes that bring the bytes. A copy happens
// when a thread waits for its barrier and nothing else is missing; in random order perhaps at once.
// The map is the shim's own (`cognate_shim_map`).
void mbarrier_init(void* barrier, unsigned arrivals);
void mbarrier_arrive(void* barrier, unsigned bytes);
void mbarrier_wait(void* barrier, unsigned parity);
void fetch_box(void* to, const void* map, unsigned column, unsigned row, void* barrier);
void part_barrier(unsigned id, unsigned threads, bool wait);

template <class T> T shuffle(unsigned mask, T mine, unsigned source, int line) {
    T got;
    memcpy(&got, exchange(mask, &mine, sizeof(T), line)[source % 32].bytes, sizeof(T));
    return got;
}
unsigned ballot(unsigned mask, bool mine, int line);

// Fibers take turns only where they wait, so plain arithmetic is atomic.
template <class T> T add(T* to, T value) {
    T old = *to;
    *to = T(old + value);
    return old;
}

} // namespace shim

#define __syncthreads() shim::sync_threads(__LINE__)
#define __syncwarp(...) ((void)shim::exchange(0xffffffffu, nullptr, 0, __LINE__))
#define __shfl_sync(mask, x, source) shim::shuffle(mask, x, source, __LINE__)
#define __shfl_xor_sync(mask, x, offset) shim::shuffle(mask, x, shim::lane() ^ (offset), __LINE__)
#define __shfl_up_sync(mask, x, delta)                                                                       \
    shim::shuffle(mask, x, shim::lane() >= (delta) ? shim::lane() - (delta) : shim::lane(), __LINE__)
#define __shfl_down_sync(mask, x, delta)                                                                     \
    shim::shuffle(mask, x, shim::lane() + (delta) < 32 ? shim::lane() + (delta) : shim::lane(), __LINE__)
#define __ballot_sync(mask, predicate) shim::ballot(mask, predicate, __LINE__)

template <class T> T atomicAdd(T* to, T value) { return shim::add(to, value); }
template <class T> T atomicMax(T* to, T value) {
    T old = *to;
    if (value > old) *to = value;
    return old;
}
template <class T> T atomicMin(T* to, T value) {
    T old = *to;
    if (value < old) *to = value;
    return old;
}

inline float __uint_as_float(unsigned x) { return shim::bits_float(x); }
inline unsigned __float_as_uint(float x) { return shim::float_bits(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a / b; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
