//! Training, in tests.

use cognate_model::cuda::{self, Purpose};
use cognate_model::{Architecture, Dtype, LlamaConfig, Model};

use crate::devices::{device, on_devices};
use crate::shim_machine::sanitized;
use crate::training_checks::{ADAMW, Steps, reinforced, start, step, supervised};
use crate::world::{config, model, values};

#[test]
fn a_supervised_batch() {
    sanitized("training::a_supervised_batch", |library| {
        supervised(&device(library, false), &config(), 1, true);
        supervised(&device(library, true), &config(), 1, false);
        let biased = LlamaConfig { architecture: Architecture::Qwen2, tie_word_embeddings: true, ..config() };
        supervised(&device(library, false), &biased, 1, false);
    });
}

#[test]
fn a_reinforced_batch() {
    sanitized("training::a_reinforced_batch", |library| {
        reinforced(&device(library, false), &config(), 1);
    });
}

#[test]
fn steps_move_the_weights_as_on_the_cpu() {
    sanitized("training::steps_move_the_weights_as_on_the_cpu", |library| {
        let steps = Steps::new(&LlamaConfig { tie_word_embeddings: true, ..config() }, 1);
        on_devices(library, |device| steps.check(device));
    });
}

#[test]
fn a_run_goes_on_from_its_files_as_if_it_had_not_stopped() {
    sanitized("training::a_run_goes_on_from_its_files_as_if_it_had_not_stopped", |library| {
        let device = device(library, false);
        let bits = |model: &cuda::Model| -> Vec<Vec<u32>> {
            let slots = model.slots();
            slots.iter().map(|s| model.values(s).unwrap().iter().map(|x| x.to_bits()).collect()).collect()
        };
        let (mut own, mut trainer, mut optimizer) = start(&model(&config(), 8), &device);
        step(&mut own, &mut trainer, &mut optimizer, 1);
        let dir = tempfile::tempdir().unwrap();
        own.save(dir.path(), Dtype::F32).unwrap();
        optimizer.save(&own, &dir.path().join("optimizer.safetensors")).unwrap();
        step(&mut own, &mut trainer, &mut optimizer, 1);

        // The file holds the masters, which the CPU reads as they are.
        let state = tempfile::tempdir().unwrap();
        let moments = state.path().join("optimizer.safetensors");
        std::fs::rename(dir.path().join("optimizer.safetensors"), &moments).unwrap();
        let cpu = Model::open(dir.path()).unwrap();
        let mut again = cuda::Model::open(dir.path(), &device, Purpose::Training).unwrap();
        for slot in again.slots() {
            assert_eq!(again.values(&slot).unwrap(), values(&cpu, &slot), "{}", slot.name);
        }
        let before = bits(&again);
        let mut optimizer = cuda::AdamW::open(&moments, &again, ADAMW).unwrap();
        assert_eq!(optimizer.steps(), 1);
        let mut trainer = cuda::Trainer::new(&again, 136).unwrap();
        step(&mut again, &mut trainer, &mut optimizer, 1);
        assert_ne!(bits(&again), before);
        assert_eq!(bits(&again), bits(&own));

        // Frozen tensors stay, to the bit; the others move.
        optimizer.freeze(&again, |name| name.contains("mlp") || name.contains("k_proj"));
        let before = bits(&again);
        step(&mut again, &mut trainer, &mut optimizer, 1);
        for ((slot, now), then) in again.slots().iter().zip(bits(&again)).zip(before) {
            let frozen = slot.name.contains("mlp") || slot.name.contains("k_proj");
            assert_eq!(now == then, frozen, "{}", slot.name);
        }
    });
}

#[test]
fn what_the_kernels_cannot_do_is_refused() {
    let narrow = LlamaConfig { head_dim: 32, ..config() };
    assert!(cuda::unsupported(&narrow).is_some_and(|why| why.contains("head_dim 32")));
    let odd = LlamaConfig { intermediate_size: 100, ..config() };
    assert!(cuda::unsupported(&odd).is_some_and(|why| why.contains("intermediate_size 100")));
    assert_eq!(cuda::unsupported(&config()), None);
    sanitized("training::what_the_kernels_cannot_do_is_refused", |library| {
        let device = device(library, false);
        let refused = |config: &LlamaConfig| {
            let made = cuda::Model::filled(config, &device, Purpose::Training, |_, _| {});
            made.err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(refused(&narrow).contains("head_dim 32"));
        // More than the device has: said before anything is allocated.
        let large = LlamaConfig { vocab_size: 10_000_000, ..config() };
        assert!(refused(&large).contains("of device memory wanted"), "{}", refused(&large));
    });
}
