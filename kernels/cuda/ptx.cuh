// Every PTX instruction that the kernels use, one small function each, beside its twin for the
// CPU. Nothing else in this folder holds inline assembly. What is asynchronous on the device is
// deferred in the twin: it happens at the wait and not before, so that a missing wait shows.
#pragma once

struct bf16 {
    unsigned short bits;
};

#ifndef COGNATE_SHIM
__device__ __forceinline__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
#endif

// 16 bytes to global memory at once: of an assignment the compiler makes several stores where it has
// followed the values into single registers.
__device__ __forceinline__ void store_words(void* to, const uint4& words) {
#ifdef COGNATE_SHIM
    *static_cast<uint4*>(to) = words;
#else
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(words.x),
                 "r"(words.y), "r"(words.z), "r"(words.w)
                 : "memory");
#endif
}

// Nearest, ties to even.
__device__ __forceinline__ bf16 to_bf16(float x) {
#ifdef COGNATE_SHIM
    return {shim::round_bf16(x)};
#else
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return {bits};
#endif
}

// Two values in one register, `low` in the lower half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#ifdef COGNATE_SHIM
    return shim::round_bf16(low) | unsigned(shim::round_bf16(high)) << 16;
#else
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

// 2^x, relative error below 2^-22.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef COGNATE_SHIM
    return __builtin_exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// d += a b on the tensor cores: a [16, 16] and b [16, 8] in bf16, d [16, 8] in fp32. With g =
// lane / 4 and t = lane % 4: a[0] holds row g, columns 2t and 2t + 1; a[1] row g + 8; a[2] and
// a[3] the same rows, columns 8 further; b[0] rows 2t and 2t + 1 of column g, b[1] 8 rows further;
// d[0], d[1] row g, columns 2t and 2t + 1, d[2], d[3] row g + 8.
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef COGNATE_SHIM
    shim::mma_m16n8k16(d, a, b0, b1);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Four 8 × 8 matrices of bf16 from shared memory: lane l gives the address of row l % 8 of matrix
// l / 8, and receives of each matrix columns 2t and 2t + 1 of row g.
__device__ __forceinline__ void ldmatrix(unsigned (&r)[4], const void* row) {
#ifdef COGNATE_SHIM
    shim::ldmatrix_x4(r, row, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// The same, each matrix transposed: rows 2t and 2t + 1 of column g.
__device__ __forceinline__ void ldmatrix_transposed(unsigned (&r)[4], const void* row) {
#ifdef COGNATE_SHIM
    shim::ldmatrix_x4(r, row, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// 16 bytes from global to shared memory, past the registers; zeros, and no read, unless `valid`.
__device__ __forceinline__ void cp_async(void* to, const void* from, bool valid) {
#ifdef COGNATE_SHIM
    shim::cp_async(to, from, valid);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
#endif
}

// Closes a group of copies.
__device__ __forceinline__ void cp_async_commit() {
#ifdef COGNATE_SHIM
    shim::cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the last `N` groups of this thread are unfinished.
template <int N> __device__ __forceinline__ void cp_async_wait() {
#ifdef COGNATE_SHIM
    shim::cp_async_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}
