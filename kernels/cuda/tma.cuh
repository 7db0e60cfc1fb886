// Hopper's copies of boxes (TMA), the barriers in shared memory that count their bytes (mbarrier),
// barriers of a part of a block, and registers passed between warp groups; each beside its twin;
// sm_90a alone has them. A copy is asynchronous: its bytes are there when a wait has passed the
// barrier's phase that expects them, and not before.
#pragma once
#include "cuda/device.cuh"

// A matrix as the copy engine reads it: made by the driver on a GPU, and opaque; by the shim on the
// CPU. A kernel takes it as `const __grid_constant__ TensorMap`.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

// A box: what one copy moves, 64 rows of 64 values of 16 bits, in the 128-byte swizzle (wgmma.cuh).
constexpr u32 BOX = 64;
constexpr u32 BOX_BYTES = BOX * BOX * 2;

// A phase of the barrier ends when `arrivals` threads have arrived and all bytes expected in it have
// come. By one thread; others may use it after `barriers_ready` and a barrier of the block.
__device__ __forceinline__ void barrier_init(u64* barrier, u32 arrivals) {
#ifdef COGNATE_SHIM
    shim::mbarrier_init(barrier, arrivals);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#endif
}

// By the thread that initialised, before the block's barrier: the copy engine sees them.
__device__ __forceinline__ void barriers_ready() {
#ifndef COGNATE_SHIM
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

__device__ __forceinline__ void barrier_arrive(u64* barrier) {
#ifdef COGNATE_SHIM
    shim::mbarrier_arrive(barrier, 0);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

// Arrives, and lets the phase wait for `bytes` more. Before the copies that bring them.
__device__ __forceinline__ void barrier_expect(u64* barrier, u32 bytes) {
#ifdef COGNATE_SHIM
    shim::mbarrier_arrive(barrier, bytes);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
#endif
}

// Waits for the end of the phase of this parity: 0 for the first, 1 for the second, and so on in
// turns. Parity 1 passes a new barrier at once.
__device__ __forceinline__ void barrier_wait(u64* barrier, u32 parity) {
#ifdef COGNATE_SHIM
    shim::mbarrier_wait(barrier, parity);
#else
    u32 done;
    do {
        asm volatile("{ .reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
    } while (!done);
#endif
}

// By one thread: starts the copy of the box at (column, row) to `to`, aligned to 1,024 bytes; rows
// and columns beyond the matrix become zeros. Its BOX_BYTES count for `barrier`.
__device__ __forceinline__ void fetch_box(void* to, const TensorMap& map, u32 column, u32 row, u64* barrier) {
#ifdef COGNATE_SHIM
    shim::fetch_box(to, &map, column, row, barrier);
#else
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
                 "l"(&map), "r"(column), "r"(row), "r"(shared_address(barrier))
                 : "memory");
#endif
}

// Has the map at hand before the first copy.
__device__ __forceinline__ void prefetch_map([[maybe_unused]] const TensorMap& map) {
#ifndef COGNATE_SHIM
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#endif
}

// Barrier `id`, 1 to 15, of `threads` threads, whole warps: those of `part_sync` wait until all have
// come, those of `part_arrive` go on at once.
__device__ __forceinline__ void part_sync(u32 id, u32 threads) {
#ifdef COGNATE_SHIM
    shim::part_barrier(id, threads, true);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

__device__ __forceinline__ void part_arrive(u32 id, u32 threads) {
#ifdef COGNATE_SHIM
    shim::part_barrier(id, threads, false);
#else
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// A kernel whose warp groups pass registers to one another: one block a multiprocessor, so that what it
// starts with is known (without, the compiler ignores what follows).
#define KERNEL_ALONE(threads, name, parameters, call)                                                        \
    extern "C" __global__ void __launch_bounds__(threads, 1) name parameters { call; }                       \
    EXPORT(name)

// Sets the registers of each thread of this warp group, from what the kernel was compiled for, down
// to `N` or, once others have given enough, up to it. All four warps, at the same place.
template <u32 N> __device__ __forceinline__ void registers_down() {
    static_assert(N % 8 == 0 && N >= 24, "registers come in eights");
#ifndef COGNATE_SHIM
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}

template <u32 N> __device__ __forceinline__ void registers_up() {
    static_assert(N % 8 == 0 && N <= 256, "registers come in eights");
#ifndef COGNATE_SHIM
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
