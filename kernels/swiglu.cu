// SwiGLU: y = silu(gate) up, silu(g) = g / (1 + e^-g); gate and up are the halves of one fused row.
// Backward, silu recomputed: dup = dy silu(g), dgate = dy up (s + silu(g) (1 - s)), s = 1/(1 + e^-g).
//
// y, dy [T, F]; gate_up, dgate_up [T, 2F]; F a multiple of 16 bytes. dgate_up may be gate_up: a
// thread reads what it writes before it writes.
//
// Bound: 3F values a token forward (6F bytes in bf16), 5F backward.
#include "cuda/device.cuh"

template <class T> __device__ __forceinline__ void swiglu_forward(T* y, const T* gate_up, u32 rows, u32 cols) {
    u32 packs = cols / Pack<T>::N;
    u64 i = global_thread();
    if (i >= u64(rows) * packs) return;
    const T* at = gate_up + (i / packs) * 2 * cols + i % packs * Pack<T>::N;
    Pack<T> gate = load(at), up = load(at + cols), out;
    for (u32 k = 0; k < Pack<T>::N; ++k) {
        float g = to_float(gate.v[k]);
        out.v[k] = from_float<T>(g / (1.0f + __expf(-g)) * to_float(up.v[k]));
    }
    store(y + i * Pack<T>::N, out);
}

template <class T>
__device__ __forceinline__ void swiglu_backward(T* dgate_up, const T* dy, const T* gate_up, u32 rows, u32 cols) {
    u32 packs = cols / Pack<T>::N;
    u64 i = global_thread();
    if (i >= u64(rows) * packs) return;
    u64 at = (i / packs) * 2 * cols + i % packs * Pack<T>::N;
    Pack<T> gate = load(gate_up + at), up = load(gate_up + at + cols), out = load(dy + i * Pack<T>::N);
    for (u32 k = 0; k < Pack<T>::N; ++k) {
        float g = to_float(gate.v[k]), d = to_float(out.v[k]);
        float s = 1.0f / (1.0f + __expf(-g)), silu = g * s;
        gate.v[k] = from_float<T>(d * to_float(up.v[k]) * (s + silu * (1.0f - s)));
        up.v[k] = from_float<T>(d * silu);
    }
    store(dgate_up + at, gate);
    store(dgate_up + at + cols, up);
}

#define INSTANCES(T, suffix)                                                                                 \
    KERNEL(256, swiglu_forward_##suffix, (T * y, const T* gate_up, u32 rows, u32 cols),                      \
           swiglu_forward(y, gate_up, rows, cols))                                                           \
    KERNEL(256, swiglu_backward_##suffix, (T * dgate_up, const T* dy, const T* gate_up, u32 rows, u32 cols), \
           swiglu_backward(dgate_up, dy, gate_up, rows, cols))
INSTANCES(bf16, bf16)
INSTANCES(float, f32)
