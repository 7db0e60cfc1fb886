// An exact fp32 master kept as a bf16 weight, which is its value rounded to nearest (ties away from
// zero), and a signed 16-bit remainder: master bits = (weight bits << 16) + remainder.
#pragma once

#include "cuda/device.cuh"

__device__ __forceinline__ float join_master(bf16 weight, u16 remainder) {
    return __uint_as_float((u32(weight.bits) << 16) + u32(i32(short(remainder))));
}

// The carry of the rounding goes into the exponent, as it should; for finite values.
__device__ __forceinline__ void split_master(float x, bf16& weight, u16& remainder) {
    u32 high = (__float_as_uint(x) + 0x8000u) >> 16;
    weight = {u16(high)};
    remainder = u16(__float_as_uint(x) - (high << 16));
}
