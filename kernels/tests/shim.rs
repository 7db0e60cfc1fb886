//! Every CUDA kernel, run on the CPU by the shim under the address and undefined-behaviour
//! sanitizers, against the CPU op: random shapes, four orders of the threads, the same bits in all.
//! Then faults planted into the shipped kernels, each of which must be seen for what it is.

mod ops;
mod shim_machine;

use cognate_kernels::attention::Heads;
use cognate_kernels::cuda::attention_attempts::FORWARD;
use cognate_kernels::cuda::launch::Element::{self, Bf16, F32};
use ops::machine::Machine;
use ops::{attention, memory, optimizer, sampling};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shim_machine::{caught, in_every_order, sanitized};

/// `cases` random shapes in every order.
fn over<S: Strategy>(test: &str, cases: u32, shapes: S, check: impl Fn(&dyn Machine, S::Value))
where
    S::Value: Clone,
{
    sanitized(test, |library| {
        let mut runner = TestRunner::new(ProptestConfig {
            cases,
            failure_persistence: None,
            max_shrink_iters: 20,
            ..ProptestConfig::default()
        });
        let result = runner.run(&shapes, |shape| {
            in_every_order(library, |on| check(on, shape.clone()));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    });
}

fn element() -> impl Strategy<Value = Element> + Clone {
    prop_oneof![Just(Bf16), Just(F32)]
}

/// Element, rows, columns in packs of 8, seed.
fn rows_of_packs() -> impl Strategy<Value = (Element, usize, usize, u64)> {
    (element(), 1..40usize, 1..40usize, any::<u64>())
}

#[test]
fn embedding() {
    over("embedding", 16, rows_of_packs(), |on, (e, rows, packs, seed)| {
        memory::check_embedding(on, e, rows, packs * 8, seed);
    });
}

#[test]
fn gather() {
    over("gather", 16, rows_of_packs(), |on, (e, rows, packs, seed)| {
        memory::check_gather(on, e, rows + 8, packs * 8, seed);
    });
}

#[test]
fn pooling() {
    over("pooling", 16, rows_of_packs(), |on, (e, rows, packs, seed)| {
        memory::check_pooling(on, e, rows, packs * 8, seed);
    });
}

#[test]
fn bias() {
    over("bias", 16, rows_of_packs(), |on, (e, rows, packs, seed)| {
        memory::check_bias(on, e, rows * 8, packs * 8, seed);
    });
}

#[test]
fn rmsnorm() {
    // 1, 2 and 4 packs a thread.
    let shapes =
        (element(), 1..300usize, prop_oneof![1..40usize, 250..300usize, 600..700usize], any::<u64>());
    over("rmsnorm", 9, shapes, |on, (e, rows, packs, seed)| {
        memory::check_rmsnorm(on, e, if packs > 40 { rows % 5 + 1 } else { rows }, packs * e.pack(), seed);
    });
}

#[test]
fn rope() {
    let shapes = (element(), 1..20usize, 1..5usize, 1..9usize, any::<u64>());
    over("rope", 12, shapes, |on, (e, rows, heads, packs, seed)| {
        memory::check_rope(on, e, rows, heads, packs * 16, seed);
    });
}

#[test]
fn swiglu() {
    over("swiglu", 16, rows_of_packs(), |on, (e, rows, packs, seed)| {
        memory::check_swiglu(on, e, rows, packs * 8, seed);
    });
}

#[test]
fn classifier() {
    let shapes = (element(), 1..6usize, prop_oneof![1..60usize, 3000..9000usize], any::<u64>());
    over("classifier", 12, shapes, |on, (e, rows, vocabulary, seed)| {
        memory::check_classifier(on, e, rows, vocabulary, seed);
        memory::check_fold(on, rows, vocabulary.next_multiple_of(8), seed);
    });
}

#[test]
fn policy_loss() {
    over("policy_loss", 6, (1..700usize, any::<u64>()), |on, (count, seed)| {
        optimizer::check_policy_loss(on, count, seed);
    });
}

#[test]
fn update() {
    over("update", 4, (1..40_000usize, any::<u64>()), |on, (n, seed)| {
        optimizer::check_update(on, n, seed);
        optimizer::check_master(on, n, seed);
        optimizer::check_norm_bf16(on, n, seed);
        optimizer::check_stochastic(on, 4096, seed);
    });
}

#[test]
fn adapters() {
    over("adapters", 6, (1..5000usize, any::<u64>()), |on, (n, seed)| optimizer::check_adapter(on, n, seed));
}

#[test]
fn sampling_draws() {
    let shapes = (element(), prop_oneof![1..40usize, 500..3000usize], any::<u64>());
    over("sampling_draws", 8, shapes, |on, (e, vocabulary, seed)| {
        sampling::check_sampling(on, e, vocabulary, seed);
    });
}

fn heads() -> impl Strategy<Value = Heads> {
    (1..3usize, 1..4usize, prop_oneof![Just(64usize), Just(128)]).prop_map(|(key, ratio, dim)| Heads {
        query: key * ratio,
        key,
        dim,
    })
}

#[test]
fn attention_varlen() {
    over("attention_varlen", 8, (1..200usize, heads(), any::<u64>()), |on, (rows, heads, seed)| {
        attention::check_attention(on, rows, heads, seed);
    });
}

#[test]
fn attention_hopper() {
    over("attention_hopper", 6, (1..300usize, heads(), any::<u64>()), |on, (rows, heads, seed)| {
        attention::check_attention_sm90a(on, rows, heads, seed);
    });
}

#[test]
fn attention_hopper_backward() {
    over("attention_hopper_backward", 4, (1..300usize, heads(), any::<u64>()), |on, (rows, heads, seed)| {
        attention::check_backward_sm90a(on, rows, heads, seed);
    });
}

#[test]
fn attention_decode() {
    let shapes = (1..6usize, 0..40usize, heads(), any::<u64>());
    over("attention_decode", 8, shapes, |on, (sequences, prompt, heads, seed)| {
        attention::check_decode(on, sequences, prompt, heads, seed);
    });
}

#[test]
fn a_missing_barrier_before_reading_is_caught() {
    let barrier = "    __syncthreads();\n    A all = scratch[0];";
    caught(
        "a_missing_barrier_before_reading_is_caught",
        ("rmsnorm.cu", "cuda/device.cuh", barrier, "    A all = scratch[0];"),
        &["rmsnorm rstd[0] is NaN"],
        |library| in_every_order(library, |on| memory::check_rmsnorm(on, Bf16, 3, 1024, 7)),
    );
}

#[test]
fn a_missing_barrier_before_writing_again_is_caught() {
    let barrier = "    __syncthreads();\n    return all;";
    caught(
        "a_missing_barrier_before_writing_again_is_caught",
        ("policy_loss.cu", "cuda/device.cuh", barrier, "    return all;"),
        &["sum 0 is", "sum 1 is"],
        |library| in_every_order(library, |on| optimizer::check_policy_loss(on, 200, 7)),
    );
}

#[test]
fn a_divergent_barrier_is_caught() {
    caught(
        "a_divergent_barrier_is_caught",
        (
            "classifier.cu",
            "classifier.cu",
            "        weights[warp] = mine.weighted;\n    }\n    __syncthreads();",
            "        weights[warp] = mine.weighted;\n        __syncthreads();\n    }",
        ),
        &["divergent barrier"],
        |library| in_every_order(library, |on| memory::check_classifier(on, Bf16, 1, 100, 7)),
    );
}

const SMALL: Heads = Heads { query: 1, key: 1, dim: 64 };

#[test]
fn a_missing_wait_is_caught() {
    let wait = "        cp_async_wait<1>();\n        __syncthreads();\n        float s[TILE / 8]";
    caught(
        "a_missing_wait_is_caught",
        ("attention.cu", "attention.cu", wait, "        __syncthreads();\n        float s[TILE / 8]"),
        &["attention lse[0] is NaN"],
        |library| in_every_order(library, |on| attention::check_attention(on, 70, SMALL, 7)),
    );
}

/// A fault in the Hopper forward, on a document of six tiles and one behind it.
fn hopper_caught(test: &str, file: &str, from: &str, to: &str, signs: &[&str]) {
    let forward = *FORWARD.last().expect("the shipped one");
    caught(test, (file, file, from, to), signs, |library| {
        in_every_order(library, |on| {
            attention::check_forward_sm90a(on, forward, &[0, 700, 740], SMALL, 7);
        });
    });
}

#[test]
fn a_missing_wait_for_products_is_caught() {
    hopper_caught(
        "a_missing_wait_for_products_is_caught",
        "attention_sm90a.cu",
        "    wgmma_wait<0>();\n    wgmma_results(s);",
        "    wgmma_results(s);",
        &["attention sm90a 2"],
    );
}

#[test]
fn operands_released_before_their_products_wait_are_caught() {
    hopper_caught(
        "operands_released_before_their_products_wait_are_caught",
        "attention_sm90a.cu",
        "        wgmma_wait<0>();\n        wgmma_results(o);\n        release(m.v_free, i - 1);",
        "        release(m.v_free, i - 1);\n        wgmma_wait<0>();\n        wgmma_results(o);",
        &["attention sm90a 2"],
    );
}

#[test]
fn a_missing_wait_for_a_box_is_caught() {
    hopper_caught(
        "a_missing_wait_for_a_box_is_caught",
        "attention_sm90a.cu",
        "        barrier_wait(m.k_full + stage, i / STAGES % 2);\n",
        "",
        &["that nobody waited for", "arrives once too often at the mbarrier"],
    );
}

#[test]
fn a_wait_for_the_wrong_phase_is_caught() {
    hopper_caught(
        "a_wait_for_the_wrong_phase_is_caught",
        "attention_sm90a.cu",
        "barrier_wait(m.v_full + stage, i / STAGES % 2)",
        "barrier_wait(m.v_full + stage, i % 2)",
        &["that nobody waited for", "arrives once too often at the mbarrier"],
    );
}

#[test]
fn a_producer_that_does_not_wait_for_a_free_stage_is_caught() {
    hopper_caught(
        "a_producer_that_does_not_wait_for_a_free_stage_is_caught",
        "attention_sm90a.cu",
        "        barrier_wait(m.k_free + stage, turn ^ 1);\n",
        "",
        &["arrives once too often at the mbarrier"],
    );
}

#[test]
fn bytes_that_nobody_expects_are_caught() {
    hopper_caught(
        "bytes_that_nobody_expects_are_caught",
        "attention_sm90a.cu",
        "barrier_expect(m.v_full + stage, BYTES);",
        "barrier_arrive(m.v_full + stage);",
        &["of which the mbarrier at byte"],
    );
}

#[test]
fn bytes_that_never_come_are_caught() {
    hopper_caught(
        "bytes_that_never_come_are_caught",
        "attention_sm90a.cu",
        "barrier_expect(m.v_full + stage, BYTES);",
        "barrier_expect(m.v_full + stage, BYTES + 16);",
        &["lacks 0 arrivals and"],
    );
}

#[test]
fn a_read_out_of_bounds_is_caught() {
    caught(
        "a_read_out_of_bounds_is_caught",
        (
            "gather.cu",
            "gather.cu",
            "if (i >= u64(count) * packs) return;",
            "if (i > u64(count) * packs) return;",
        ),
        &["heap-buffer-overflow"],
        |library| in_every_order(library, |on| memory::check_gather(on, Bf16, 9, 64, 7)),
    );
}

#[test]
fn shared_memory_has_ends() {
    caught(
        "shared_memory_has_ends",
        (
            "attention.cu",
            "attention.cu",
            "bf16* v = k + 2 * TILE * D;\n    Tile",
            "bf16* v = k + 3 * TILE * D;\n    Tile",
        ),
        &["heap-buffer-overflow"],
        |library| in_every_order(library, |on| attention::check_attention(on, 600, SMALL, 7)),
    );
}

#[test]
fn an_address_that_is_not_aligned_is_caught() {
    caught(
        "an_address_that_is_not_aligned_is_caught",
        ("swiglu.cu", "swiglu.cu", "Pack<T> gate = load(at), up", "Pack<T> gate = load(at + 1), up"),
        &["misaligned address"],
        |library| in_every_order(library, |on| memory::check_swiglu(on, Bf16, 3, 64, 7)),
    );
}
