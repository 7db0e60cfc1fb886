//! The model on a device against the model on the CPU: whole training steps and decode loops of tiny
//! models over the shipped kernels, which the shim runs on the CPU under the sanitizers. Buffers begin
//! full of NaN; every check runs in several orders of the threads and gives the same bits in all.

#[path = "../../../../kernels/tests/ops/mod.rs"]
#[expect(dead_code, reason = "the kernels' own checks")]
mod ops;
#[path = "../../../../kernels/tests/shim_machine/mod.rs"]
#[expect(dead_code, reason = "shared with the kernels' tests")]
mod shim_machine;

mod adapter_checks;
mod adapting;
mod decoding;
mod decoding_checks;
mod devices;
mod preparing;
mod sharding;
mod sharding_checks;
mod training;
mod training_checks;
mod world;
