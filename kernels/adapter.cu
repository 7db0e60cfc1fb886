// What low-rank adapters (LoRA) need besides matrix products:
//   adapter_operand: out = scale x, a factor in fp32 as an operand of products in bf16 (nearest, ties
//   to even);
//   adapter_merge: w = base + scale delta, where w and base are exact masters: bf16 weights with a
//   16-bit remainder (cuda/master.cuh).
//
// All [n], n a multiple of 8. Bound, bytes a value: 6 for the operand, 12 for the merge.
#include "cuda/master.cuh"

constexpr u32 VALUES = Pack<bf16>::N;

// 8 values in fp32.
struct Eight {
    Pack<float> half[2];
    __device__ __forceinline__ explicit Eight(const float* from) : half{load(from), load(from + 4)} {}
    __device__ __forceinline__ float operator[](u32 k) const { return half[k / 4].v[k % 4]; }
};

__device__ __forceinline__ void operand_pack(bf16* out, const float* x, float scale, u64 n) {
    u64 i = global_thread() * VALUES;
    if (i >= n) return;
    Eight values(x + i);
    Pack<bf16> rounded;
    for (u32 k = 0; k < VALUES; ++k) rounded.v[k] = to_bf16(scale * values[k]);
    store(out + i, rounded);
}

KERNEL(256, adapter_operand, (bf16 * out, const float* x, float scale, u64 n), operand_pack(out, x, scale, n))

__device__ __forceinline__ void merge_pack(bf16* w, u16* rest, const bf16* base, const u16* base_rest,
                                           const float* delta, float scale, u64 n) {
    u64 i = global_thread() * VALUES;
    if (i >= n) return;
    Pack<bf16> weight = load(base + i);
    Pack<u16> remainder = load(base_rest + i);
    Eight change(delta + i);
    for (u32 k = 0; k < VALUES; ++k) {
        float master = join_master(weight.v[k], remainder.v[k]) + scale * change[k];
        split_master(master, weight.v[k], remainder.v[k]);
    }
    store(w + i, weight);
    store(rest + i, remainder);
}

KERNEL(256, adapter_merge,
       (bf16 * w, u16* rest, const bf16* base, const u16* base_rest, const float* delta, float scale, u64 n),
       merge_pack(w, rest, base, base_rest, delta, scale, n))
