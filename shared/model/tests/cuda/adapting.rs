//! Adapters, in tests.

use cognate_model::cuda::{self, Purpose};
use cognate_model::{Batch, Lora, LoraConfig, ModelError, Objective, Plan, Setup, Target, Trainer};

use crate::adapter_checks::{Adapters, Learner, adapters};
use crate::devices::{device, on_devices};
use crate::shim_machine::sanitized;
use crate::training_checks::{ADAMW, cpu_accumulate};
use crate::world::{config, documents, model, on, values};

#[test]
fn steps_move_the_factors_as_on_the_cpu_and_nothing_else() {
    sanitized("adapting::steps_move_the_factors_as_on_the_cpu_and_nothing_else", |library| {
        let steps = Adapters::new(&config(), 1);
        on_devices(library, |device| steps.check(device));
    });
}

#[test]
fn a_run_goes_on_from_its_file_as_if_it_had_not_stopped() {
    sanitized("adapting::a_run_goes_on_from_its_file_as_if_it_had_not_stopped", |library| {
        let (device, base) = (device(library, false), model(&config(), 22));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapters.safetensors");
        let run = |through_file: bool| {
            let mut learner = Learner::new(&base, &device);
            for _ in 0..3 {
                learner.step(1);
                if through_file {
                    learner.lora.save(&path).unwrap();
                    learner = Learner::new(&base, &device);
                    learner.lora = cuda::Lora::open(&path, &mut learner.model, adapters()).unwrap();
                }
            }
            learner.bits()
        };
        let whole = run(false);
        assert!(run(true) == whole);

        // The file is the CPU's: read there and written again it has the same bytes, and the merged weights
        // are the same but for the rounding of sums.
        let mut cpu = base.clone();
        let lora = Lora::open(&path, &mut cpu, adapters()).unwrap();
        let again = dir.path().join("again.safetensors");
        lora.save(&again).unwrap();
        assert!(std::fs::read(&again).unwrap() == std::fs::read(&path).unwrap());
        for (slot, bits) in on(&base, &device, Purpose::Training).slots().iter().zip(&whole) {
            for (want, bits) in values(&cpu, slot).iter().zip(bits) {
                let got = f32::from_bits(*bits);
                assert!((got - want).abs() <= 1e-6, "{}: {got}, the CPU says {want}", slot.name);
            }
        }
        let other = LoraConfig { rank: 4, ..adapters() };
        let found = cuda::Lora::open(&path, &mut on(&base, &device, Purpose::Training), other);
        assert!(matches!(found.err(), Some(ModelError::Shape { .. })));
    });
}

#[test]
fn a_run_goes_on_from_the_cpus_file() {
    sanitized("adapting::a_run_goes_on_from_the_cpus_file", |library| {
        let (device, base) = (device(library, false), model(&config(), 23));
        let dir = tempfile::tempdir().unwrap();
        let [path, again] = ["adapters", "again"].map(|name| dir.path().join(name));
        let mut cpu = base.clone();
        let (mut trainer, mut lora) = (Trainer::new(&cpu, 136), Lora::new(&cpu, adapters(), 1).unwrap());
        cpu_accumulate(&cpu, &mut trainer, 1);
        lora.step(&mut cpu, &mut trainer, ADAMW, 5e-3, Some(1.0));
        lora.save(&path).unwrap();
        let mut model = on(&base, &device, Purpose::Training);
        cuda::Lora::open(&path, &mut model, adapters()).unwrap().save(&again).unwrap();
        assert!(std::fs::read(&again).unwrap() == std::fs::read(&path).unwrap());
    });
}

#[test]
fn a_gradient_that_is_no_number_moves_nothing() {
    sanitized("adapting::a_gradient_that_is_no_number_moves_nothing", |library| {
        let base = model(&config(), 24);
        let mut learner = Learner::new(&base, &device(library, false));
        learner.step(1);
        let before = learner.bits();
        let d = documents(1, 1);
        let broken = d.weights(|_| f32::NAN, |t| t == 30);
        let batch = Batch { tokens: &d.tokens, starts: &d.starts, cross_entropy: &broken, policy: None };
        learner.trainer.accumulate(&learner.model, &batch, &Objective::default()).unwrap();
        assert!(!learner.update().is_finite());
        assert!(learner.bits() == before, "the model stays");
        // Neither the count of steps nor a moment has moved, and the gradients are zero again.
        let mut other = Learner::new(&base, &device(library, false));
        other.step(1);
        assert_eq!(learner.step(1).to_bits(), other.step(1).to_bits());
        assert!(learner.bits() == other.bits());
    });
}

#[test]
fn adapters_take_what_is_planned_and_a_model_for_training() {
    sanitized("adapting::adapters_take_what_is_planned_and_a_model_for_training", |library| {
        let (device, base) = (device(library, false), model(&config(), 25));
        let lora = Learner::new(&base, &device).lora;
        let setup = Setup { target: Target::Cuda, adapters: Some(adapters()), ..Setup::default() };
        let names = ["frozen matrices", "adapters", "merging"];
        let items = Plan::new(&config(), &setup).items;
        let planned: usize = items.iter().filter(|i| names.contains(&i.name)).map(|i| i.bytes).sum();
        // Each buffer ends on a line of 256 bytes.
        assert!(planned <= lora.bytes() && lora.bytes() < planned + 256 * 40, "{planned}, {}", lora.bytes());
        assert_eq!(lora.parameters(), Lora::new(&base, adapters(), 1).unwrap().parameters());

        let model = on(&base, &device, Purpose::Inference);
        let found = cuda::Lora::new(&model, adapters(), 1).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(found.contains("a model for inference"), "{found}");
        let model = on(&base, &device, Purpose::Training);
        for wrong in
            [LoraConfig { rank: 0, ..adapters() }, LoraConfig { targets: vec!["query".into()], ..adapters() }]
        {
            assert!(cuda::Lora::new(&model, wrong, 1).is_err_and(|e| e.is_data()));
        }
    });
}
