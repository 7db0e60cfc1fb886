// The loss contract, token by token: cross-entropy, clipped policy gradient and KL penalty, each
// over its global count; gives the derivative by the token's log-probability, and sums. The
// formulas are policy_loss.rs; all in double precision, since tokens are few beside their logits.
//
// terms [T]; rows [T, 3] as the classifier leaves them (logp, entropy, lse); dlogp [T] fp32; dz [T], the
// derivative by lse, null without z-loss; partial [blocks, 17] fp64, which `policy_loss_sums` adds to
// sums [17] block by block.
//
// Bound: 56 bytes a token; latency in practice.
#include "cuda/device.cuh"

// NaN for what is absent; the last two take the place of the token's own. The layout of the host's
// `Token`.
struct Terms {
    float cross_entropy, policy, kl, advantage, sampler, old, reference, log_ratio, log_importance;
};

// The layout of the host's `Goal`. `kl`: Schulman's estimator 1, 2 or 3; `importance_cap` NaN: none.
struct Objective {
    double cross_entropy_count, policy_count, kl_count;
    float clip_low, clip_high, importance_cap;
    u32 kl;
    float z_loss;
    u32 padding;
};

enum {
    LOSS,
    CROSS_ENTROPY,
    POLICY,
    KL,
    CROSS_ENTROPY_TOKENS,
    POLICY_TOKENS,
    KL_TOKENS,
    TOKENS,
    ENTROPY,
    LOGPROB,
    CLIPPED_LOW,
    CLIPPED_HIGH,
    RATIO,
    APPROX_KL,
    ABS_DELTA,
    IMPORTANCE_TRUNCATED,
    Z_LOSS,
    SUMS
};

__device__ __forceinline__ double policy_term(double* sums, const Terms& terms, double logp, const Objective& goal) {
    double old = terms.old == terms.old ? double(terms.old) : logp;
    double own = logp - old, whole = terms.log_ratio;
    double ratio = exp(whole == whole ? whole : own), advantage = terms.advantage, weight = terms.policy / goal.policy_count;
    sums[POLICY_TOKENS] = 1;
    if (terms.sampler == terms.sampler) {
        double delta = old - terms.sampler;
        sums[ABS_DELTA] = fabs(delta);
        if (goal.importance_cap == goal.importance_cap) {
            double mean = terms.log_importance;
            double importance = exp(mean == mean ? mean : delta), cap = goal.importance_cap;
            sums[IMPORTANCE_TRUNCATED] = importance > cap;
            weight *= importance > cap ? cap : importance;
        }
    }
    double low = 1.0 - goal.clip_low, high = 1.0 + goal.clip_high;
    double clipped = ratio < low ? low : ratio > high ? high : ratio;
    bool stopped = clipped * advantage < ratio * advantage;
    sums[CLIPPED_LOW] = stopped && ratio < clipped;
    sums[CLIPPED_HIGH] = stopped && ratio > clipped;
    sums[RATIO] = ratio;
    sums[APPROX_KL] = expm1(own) - own;
    sums[POLICY] = -weight * (stopped ? clipped : ratio) * advantage;
    sums[LOSS] += sums[POLICY];
    return stopped ? 0.0 : -weight * ratio * advantage;
}

__device__ __forceinline__ void policy_loss(float* dlogp, float* dz, double* partial, const Terms* all,
                                            const float* rows, u32 count, Objective goal) {
    SHARED(double, scratch, 32);
    u32 t = u32(global_thread());
    double sums[SUMS] = {};
    if (t < count) {
        Terms terms = all[t];
        double logp = rows[u64(t) * 3], derivative = 0;
        if (terms.cross_entropy != 0 || terms.policy != 0 || terms.kl != 0) {
            sums[TOKENS] = 1;
            sums[ENTROPY] = rows[u64(t) * 3 + 1];
            sums[LOGPROB] = logp;
        }
        if (terms.cross_entropy != 0) {
            double weight = terms.cross_entropy / goal.cross_entropy_count;
            sums[CROSS_ENTROPY_TOKENS] = 1;
            sums[CROSS_ENTROPY] = -weight * logp;
            sums[LOSS] += sums[CROSS_ENTROPY];
            derivative -= weight;
        }
        if (terms.policy != 0) derivative += policy_term(sums, terms, logp, goal);
        if (terms.kl != 0) {
            double weight = terms.kl / goal.kl_count, delta = terms.reference - logp;
            double value = -delta, slope = 1;
            if (goal.kl == 2) value = 0.5 * delta * delta, slope = -delta;
            if (goal.kl == 3) value = expm1(delta) - delta, slope = -expm1(delta);
            sums[KL_TOKENS] = 1;
            sums[KL] = weight * value;
            sums[LOSS] += sums[KL];
            derivative += weight * slope;
        }
        if (dz) {
            double z = rows[u64(t) * 3 + 2], weight = terms.cross_entropy * double(goal.z_loss) / goal.cross_entropy_count;
            sums[Z_LOSS] = weight * z * z;
            sums[LOSS] += sums[Z_LOSS];
            dz[t] = float(2 * weight * z);
        }
        dlogp[t] = float(derivative);
    }
#pragma unroll
    for (u32 i = 0; i < SUMS; ++i) {
        double sum = block_reduce<Sum>(sums[i], scratch);
        if (threadIdx.x == 0) partial[u64(blockIdx.x) * SUMS + i] = sum;
    }
}

KERNEL(256, policy_loss_tokens,
       (float* dlogp, float* dz, double* partial, const Terms* terms, const float* rows, u32 count, Objective goal),
       policy_loss(dlogp, dz, partial, terms, rows, count, goal))

__device__ __forceinline__ void policy_sums(double* sums, const double* partial, u32 blocks) {
    if (threadIdx.x >= SUMS) return;
    double sum = sums[threadIdx.x];
    for (u32 b = 0; b < blocks; ++b) sum += partial[u64(b) * SUMS + threadIdx.x];
    sums[threadIdx.x] = sum;
}

KERNEL(32, policy_loss_sums, (double* sums, const double* partial, u32 blocks), policy_sums(sums, partial, blocks))
