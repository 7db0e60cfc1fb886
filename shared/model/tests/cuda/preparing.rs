//! The step that is laid out while the device draws: that it is, and that it is used for nothing but the
//! sequences it was made for.

use std::cell::RefCell;
use std::rc::Rc;

use cognate_kernels::cuda::cublaslt::Product;
use cognate_kernels::cuda::launch::{Arguments, CudaError, Engine, Matrix, Shape, TensorMap};
use cognate_model::cuda::{self, Accelerator, Purpose};
use cognate_model::{ModelError, Request, SequenceId};
use cognate_random::Key;

use crate::decoding_checks::OPTIONS;
use crate::devices::device;
use crate::shim_machine::sanitized;
use crate::world::{config, documents, model, on};

/// A device that writes down what it is asked for.
struct Watched {
    device: Rc<dyn Accelerator>,
    asked: RefCell<Vec<String>>,
}

impl Watched {
    fn note(&self, what: &str) -> &dyn Accelerator {
        self.asked.borrow_mut().push(what.into());
        &*self.device
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

impl Engine for Watched {
    fn launch(&self, source: &'static str, name: &str, shape: Shape, a: Arguments) -> Result<(), CudaError> {
        self.note(source).launch(source, name, shape, a)
    }

    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, CudaError> {
        self.device.tensor_map(matrix)
    }
}

impl Accelerator for Watched {
    fn name(&self) -> String {
        self.device.name()
    }

    fn hopper(&self) -> bool {
        self.device.hopper()
    }

    fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.device.memory()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.device.allocate(bytes)
    }

    unsafe fn free(&self, address: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { self.device.free(address, bytes) }
    }

    unsafe fn write(&self, address: u64, data: &[u8]) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { self.note("write").write(address, data) }
    }

    unsafe fn read(&self, address: u64, data: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { self.note("read").read(address, data) }
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { self.note("copy").copy(to, from, bytes) }
    }

    unsafe fn fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), CudaError> {
        // SAFETY: promised by the caller.
        unsafe { self.note("fill").fill(address, bytes, value) }
    }

    fn product(
        &self,
        product: Product,
        out: Matrix,
        operands: (Matrix, Matrix),
        accumulate: bool,
        bias: Option<Matrix>,
    ) -> Result<(), CudaError> {
        self.note("product").product(product, out, operands, accumulate, bias)
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        self.note("wait").synchronize()
    }
}

fn count(asked: &[String], what: &str) -> usize {
    asked.iter().filter(|a| *a == what).count()
}

/// Prompts on both sides of a page's border and on it, all different.
fn prompts() -> Vec<Vec<u32>> {
    let all = documents(6, 1).tokens;
    [0..20, 30..46, 50..97, 100..115].map(|span| all[span].to_vec()).to_vec()
}

/// One model, and what is drawn after each prompt, by a key of its own.
struct World {
    model: cuda::Model,
    prompts: Vec<Vec<u32>>,
}

impl World {
    fn new(device: &Rc<dyn Accelerator>) -> Self {
        World { model: on(&model(&config(), 14), device, Purpose::Inference), prompts: prompts() }
    }

    fn start(&self, decoder: &mut cuda::Decoder, prompts: &[usize]) -> Vec<SequenceId> {
        let request = |&p: &usize| Request { prompt: &self.prompts[p], samples: 1 };
        decoder.start(&self.model, &prompts.iter().map(request).collect::<Vec<_>>()).unwrap()
    }

    /// Draws token `n` of the live sequences, which continue `prompts`.
    fn sample(&self, decoder: &mut cuda::Decoder, prompts: &[usize], n: u64) {
        self.sample_each(decoder, &prompts.iter().map(|&p| (p, n)).collect::<Vec<_>>());
    }

    /// Draws for each live sequence, which continues a prompt, a token of its own number.
    fn sample_each(&self, decoder: &mut cuda::Decoder, live: &[(usize, u64)]) {
        let numbers: Vec<(Key, u64)> = live.iter().map(|&(p, n)| (Key::new(3).with(p), n)).collect();
        decoder.sample(&self.model, &[OPTIONS], &numbers).unwrap();
    }

    /// The logits of the live sequences, which continue `prompts` by `steps` tokens, are those that each has
    /// alone, bit for bit.
    fn check(&self, decoder: &cuda::Decoder, prompts: &[usize], steps: u64) {
        self.check_each(decoder, &prompts.iter().map(|&p| (p, steps)).collect::<Vec<_>>());
    }

    fn check_each(&self, decoder: &cuda::Decoder, live: &[(usize, u64)]) {
        assert_eq!(decoder.live().len(), live.len());
        for (row, &(prompt, steps)) in live.iter().enumerate() {
            let mut alone = cuda::Decoder::new(&self.model, 1, 64).unwrap();
            self.start(&mut alone, &[prompt]);
            for n in 0..steps {
                self.sample(&mut alone, &[prompt], n);
                alone.step(&self.model).unwrap();
            }
            let bits = |logits: Vec<f32>| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let (got, want) = (decoder.logits(&self.model, row), alone.logits(&self.model, 0));
            assert!(bits(got.unwrap()) == bits(want.unwrap()), "row {row} after {steps} steps");
        }
    }
}

#[test]
fn a_step_is_laid_out_while_the_device_draws() {
    sanitized("preparing::a_step_is_laid_out_while_the_device_draws", |library| {
        let watched = Rc::new(Watched { device: device(library, false), asked: RefCell::default() });
        let world = World::new(&(Rc::clone(&watched) as _));
        let mut decoder = cuda::Decoder::new(&world.model, 4, 64).unwrap();
        let ids = world.start(&mut decoder, &[0, 1, 2]);
        for n in 0..2 {
            watched.asked();
            world.sample(&mut decoder, &[0, 1, 2], n);
            let asked = watched.asked();
            let drawing = asked.iter().position(|a| a == "sampling").unwrap();
            assert_eq!(count(&asked[drawing..], "write"), 6, "laid out after the launch: {asked:?}");
            assert_eq!(asked.iter().position(|a| a == "read"), Some(asked.len() - 1), "{asked:?}");
            decoder.step(&world.model).unwrap();
            let asked = watched.asked();
            assert_eq!(count(&asked, "write"), 1, "the tokens alone: {asked:?}");
            assert_eq!((count(&asked, "read"), count(&asked, "wait")), (0, 0), "{asked:?}");
        }
        // Of other sequences it is laid out anew.
        world.sample(&mut decoder, &[0, 1, 2], 2);
        decoder.finish(&world.model, &ids[1..2]).unwrap();
        watched.asked();
        decoder.step(&world.model).unwrap();
        assert_eq!(count(&watched.asked(), "write"), 7);
        world.check(&decoder, &[0, 2], 3);
    });
}

#[test]
fn what_was_laid_out_for_others_is_not_used() {
    sanitized("preparing::what_was_laid_out_for_others_is_not_used", |library| {
        let world = World::new(&device(library, false));
        let mut decoder = cuda::Decoder::new(&world.model, 4, 64).unwrap();

        // Nothing is finished, which names nobody or a stranger.
        let ids = world.start(&mut decoder, &[0, 1, 2, 3]);
        world.sample(&mut decoder, &[0, 1, 2, 3], 0);
        decoder.finish(&world.model, &[]).unwrap();
        decoder.step(&world.model).unwrap();
        world.check(&decoder, &[0, 1, 2, 3], 1);

        // A draw that is repeated, then one sequence less, with as many rows.
        world.sample(&mut decoder, &[0, 1, 2, 3], 7);
        world.sample(&mut decoder, &[0, 1, 2, 3], 1);
        decoder.finish(&world.model, &ids[..1]).unwrap();
        decoder.step(&world.model).unwrap();
        world.check(&decoder, &[1, 2, 3], 2);

        // All end, and others start in their places.
        world.sample(&mut decoder, &[1, 2, 3], 2);
        decoder.finish(&world.model, &ids).unwrap();
        decoder.step(&world.model).unwrap();
        let ids = world.start(&mut decoder, &[3, 0, 1]);
        let undrawn = decoder.step(&world.model);
        assert!(matches!(undrawn, Err(ModelError::Capacity(_))), "nothing was drawn");
        world.sample(&mut decoder, &[3, 0, 1], 0);
        decoder.step(&world.model).unwrap();
        world.check(&decoder, &[3, 0, 1], 1);

        // One ends before the draw, and another starts.
        decoder.finish(&world.model, &ids[1..2]).unwrap();
        world.start(&mut decoder, &[2]);
        world.sample_each(&mut decoder, &[(3, 1), (1, 1), (2, 0)]);
        decoder.step(&world.model).unwrap();
        world.check_each(&decoder, &[(3, 2), (1, 2), (2, 1)]);
    });
}

#[test]
fn what_was_laid_out_is_dropped_with_its_sequences() {
    sanitized("preparing::what_was_laid_out_is_dropped_with_its_sequences", |library| {
        let world = World::new(&device(library, false));
        // Two pages a sequence, of which the second is taken while the first token is drawn.
        let mut decoder = cuda::Decoder::new(&world.model, 2, 32).unwrap();
        for round in 0..5 {
            let ids = world.start(&mut decoder, &[1, 1]);
            world.sample(&mut decoder, &[1, 1], 0);
            if round % 2 == 0 {
                decoder.clear();
            } else {
                decoder.finish(&world.model, &ids).unwrap();
            }
        }
        world.start(&mut decoder, &[1]);
        world.sample(&mut decoder, &[1], 0);
        decoder.clear();
        world.start(&mut decoder, &[0]);
        assert!(matches!(decoder.step(&world.model), Err(ModelError::Capacity(_))), "nothing was drawn");
        world.sample(&mut decoder, &[0], 0);
        decoder.step(&world.model).unwrap();
        world.check(&decoder, &[0], 1);
    });
}

#[test]
fn a_sequence_without_room_is_drawn_for_and_its_neighbours_go_on() {
    sanitized("preparing::a_sequence_without_room_is_drawn_for_and_its_neighbours_go_on", |library| {
        let world = World::new(&device(library, false));
        let mut decoder = cuda::Decoder::new(&world.model, 2, 16).unwrap();
        // Fifteen tokens, and sixteen of sixteen.
        let ids = world.start(&mut decoder, &[3, 1]);
        world.sample(&mut decoder, &[3, 1], 0);
        assert!(matches!(decoder.step(&world.model), Err(ModelError::TooLong { document: 1, .. })));
        decoder.finish(&world.model, &ids[1..]).unwrap();
        decoder.step(&world.model).unwrap();
        world.check(&decoder, &[3], 1);
    });
}
