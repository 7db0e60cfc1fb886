// Hopper's warp-group products (wgmma), each beside its twin; sm_90a alone has them. Four warps
// multiply 64 rows together; operands lie in shared memory in the 128-byte swizzle: rows of 64
// bf16, eight rows an atom of 1,024 bytes, 16-byte chunk c of row r at c ^ (r % 8). Products are
// asynchronous: registers and operands are theirs until the wait.
#pragma once
#include "cuda/device.cuh"

// Where an operand lies. Rows along the inner dimension (queries, keys): `near` is not read and
// `far` is the distance of eight rows. Rows across it (values): `near` is the distance of panels of
// 64 columns, `far` that of eight rows. PTX ISA, "matrix descriptor".
struct Operand {
#ifdef COGNATE_SHIM
    const unsigned char* start;
    u32 near, far;
#else
    u64 bits;
#endif
};

__device__ __forceinline__ Operand operand(const void* start, u32 near, u32 far) {
#ifdef COGNATE_SHIM
    return {static_cast<const unsigned char*>(start), near, far};
#else
    // Addresses and distances in units of 16 bytes; 1 in the highest two bits: swizzle of 128 bytes.
    return {u64((shared_address(start) & 0x3ffff) >> 4) | u64(near >> 4) << 16 | u64(far >> 4) << 32 | 1ull << 62};
#endif
}

// Before the first product that reads registers or shared memory which this thread wrote.
__device__ __forceinline__ void wgmma_fence() {
#ifndef COGNATE_SHIM
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// What ordinary stores and cp.async wrote becomes visible to the tensor cores' reads of shared memory.
__device__ __forceinline__ void fence_async_proxy() {
#ifndef COGNATE_SHIM
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

__device__ __forceinline__ void wgmma_commit() {
#ifdef COGNATE_SHIM
    shim::wgmma_commit();
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most the last `N` groups are unfinished.
template <int N> __device__ __forceinline__ void wgmma_wait() {
#ifdef COGNATE_SHIM
    shim::wgmma_wait(N);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}

// After the wait: keeps the compiler from reading the results before it.
template <u32 N> __device__ __forceinline__ void wgmma_results([[maybe_unused]] float (&d)[N][4]) {
#ifndef COGNATE_SHIM
#pragma unroll
    for (u32 n = 0; n < N; ++n)
        asm volatile("" : "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])::"memory");
#endif
}

#ifndef COGNATE_SHIM
#define FOUR(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define EIGHT_TILES(d, i)                                                                                    \
    FOUR(d, i), FOUR(d, i + 1), FOUR(d, i + 2), FOUR(d, i + 3), FOUR(d, i + 4), FOUR(d, i + 5), FOUR(d, i + 6), \
        FOUR(d, i + 7)
#define REGISTERS_32                                                                                         \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27," \
    "%28,%29,%30,%31"
#define REGISTERS_64                                                                                         \
    REGISTERS_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
                 "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#endif

// s [64, 8 N] (+)= a [64, 16] · b [8 N, 16]ᵀ; both in shared memory, rows along the inner dimension.
// Register i of column tile n as in mma.
template <u32 N> __device__ __forceinline__ void wgmma_rows(float (&s)[N][4], Operand a, Operand b, bool add) {
    static_assert(N == 8 || N == 16, "64 or 128 columns");
#ifdef COGNATE_SHIM
    shim::wgmma(&s[0][0], N, {a.start, a.near, a.far}, nullptr, {b.start, b.near, b.far}, false, add);
#else
    if constexpr (N == 8) {
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_32
                     "}, %32, %33, p, 1, 1, 0, 0; }"
                     : EIGHT_TILES(s, 0)
                     : "l"(a.bits), "l"(b.bits), "r"(int(add)));
    } else {
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %66, 0;\n"
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGISTERS_64
                     "}, %64, %65, p, 1, 1, 0, 0; }"
                     : EIGHT_TILES(s, 0), EIGHT_TILES(s, 8)
                     : "l"(a.bits), "l"(b.bits), "r"(int(add)));
    }
#endif
}

// o [64, 8 N] += p [64, 16] · b [16, 8 N]; p in registers as mma's left operand, b in shared memory,
// rows across the inner dimension.
template <u32 N>
__device__ __forceinline__ void wgmma_columns(float (&o)[N][4], const u32 (&p)[4], Operand b) {
    static_assert(N == 8 || N == 16, "64 or 128 columns");
#ifdef COGNATE_SHIM
    shim::wgmma(&o[0][0], N, {}, p, {b.start, b.near, b.far}, true, true);
#else
    if constexpr (N == 8) {
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_32
                     "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                     : EIGHT_TILES(o, 0)
                     : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(b.bits));
    } else {
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGISTERS_64
                     "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                     : EIGHT_TILES(o, 0), EIGHT_TILES(o, 8)
                     : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(b.bits));
    }
#endif
}
