//! Data-parallel steps on devices: threads as ranks, each with a device of its own, against one rank.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use cognate_collective::{Collective, CollectiveError, DeviceSlice, Element, Member, SharedMemory, share};
use cognate_kernels::cuda::accelerator::{read, write};
use cognate_kernels::cuda::launch::{self, Matrix};
use cognate_model::cuda::{self, Accelerator, Purpose};
use cognate_model::{Batch, Dtype, LlamaConfig, Model};
use half::bf16;

use super::training_checks::{ADAMW, accumulate, micro_batches, start};
use super::world::{distance, model, on};

/// Opens a rank's device, in the rank's thread.
pub type Open<'o> = &'o (dyn Fn(usize) -> Rc<dyn Accelerator> + Sync);

/// Collectives between devices by way of the host: what NCCL does, for any device and with sums that are rounded once.
struct Staged {
    on: Rc<dyn Accelerator>,
    host: SharedMemory,
}

impl Staged {
    fn matrix(values: &DeviceSlice, first: usize, len: usize) -> Matrix {
        assert_eq!(values.element().size(), 2, "ranks exchange 16 bits a value");
        // SAFETY: a slice is where its maker promised, and `write` and `read` look at nothing but its bytes.
        unsafe { Matrix::new(values.address() + 2 * first as u64, 1, len, launch::Element::U16) }
    }

    fn own(&self, values: &DeviceSlice) -> std::ops::Range<usize> {
        DeviceSlice::share(values.len(), values.element(), self.rank(), self.size())
    }

    fn device(result: Result<Vec<u16>, launch::CudaError>) -> Vec<u16> {
        result.expect("a test's device does not fail")
    }

    fn sums(&mut self, values: &DeviceSlice) -> Result<Vec<u16>, CollectiveError> {
        assert_eq!(values.element(), Element::Bf16, "only numbers are summed");
        let halves = Self::device(read(&*self.on, Self::matrix(values, 0, values.len())));
        let mut sums: Vec<f32> = halves.iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect();
        self.host.all_reduce(&mut sums)?;
        Ok(sums.iter().map(|&x| bf16::from_f32(x).to_bits()).collect())
    }

    /// Words of `root`, as numbers that `f32` holds.
    fn send(&mut self, to: Matrix, root: usize) -> Result<(), CollectiveError> {
        let words = Self::device(read(&*self.on, to));
        let mut numbers: Vec<f32> = words.iter().map(|&word| f32::from(word)).collect();
        self.host.broadcast(&mut numbers, root)?;
        let words: Vec<u16> = numbers.iter().map(|&x| x as u16).collect();
        write(&*self.on, to, &words).expect("a test's device does not fail");
        Ok(())
    }
}

impl Collective for Staged {
    type Values = DeviceSlice;

    fn rank(&self) -> usize {
        self.host.rank()
    }

    fn size(&self) -> usize {
        self.host.size()
    }

    fn all_reduce(&mut self, values: &mut DeviceSlice) -> Result<(), CollectiveError> {
        let sums = self.sums(values)?;
        write(&*self.on, Self::matrix(values, 0, values.len()), &sums)
            .expect("a test's device does not fail");
        Ok(())
    }

    fn reduce_scatter(&mut self, values: &mut DeviceSlice) -> Result<(), CollectiveError> {
        let (sums, own) = (self.sums(values)?, self.own(values));
        let to = Self::matrix(values, own.start, own.len());
        write(&*self.on, to, &sums[own]).expect("a test's device does not fail");
        Ok(())
    }

    fn all_gather(&mut self, values: &mut DeviceSlice) -> Result<(), CollectiveError> {
        for root in 0..self.size() {
            let own = DeviceSlice::share(values.len(), values.element(), root, self.size());
            self.send(Self::matrix(values, own.start, own.len()), root)?;
        }
        Ok(())
    }

    fn broadcast(&mut self, values: &mut DeviceSlice, root: usize) -> Result<(), CollectiveError> {
        self.send(Self::matrix(values, 0, values.len()), root)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.host.barrier()
    }
}

/// A rank at work.
pub struct Rank {
    pub model: cuda::Model,
    trainer: cuda::Trainer,
    optimizer: cuda::ShardedAdamW,
    host: SharedMemory,
    devices: Staged,
}

impl Rank {
    fn rank(&self) -> (usize, usize) {
        (self.host.rank(), self.host.size())
    }

    /// Gradients of this rank's part of a step's micro-batches, times `weight`.
    fn accumulate(&mut self, scale: u32, weight: f32) {
        let (both, weights, objective) = micro_batches(scale);
        // A weight of 0 stays one, times infinity too.
        let weights: Vec<f32> = weights.iter().map(|&w| if w == 0.0 { w } else { w * weight }).collect();
        let (rank, size) = self.rank();
        for d in &both[share(both.len(), rank, size)] {
            let batch = Batch { tokens: &d.tokens, starts: &d.starts, cross_entropy: &weights, policy: None };
            self.trainer.accumulate(&self.model, &batch, &objective).unwrap();
        }
    }

    /// One step on the gradients that there are; the norm.
    fn update(&mut self, max_norm: Option<f32>) -> f64 {
        let Rank { model, trainer, optimizer, host, devices } = self;
        optimizer.step(model, trainer, host, devices, 2e-3, max_norm).unwrap().gradient_norm
    }

    pub fn step(&mut self, scale: u32) -> f64 {
        self.accumulate(scale, 1.0);
        self.update(Some(1.0))
    }

    fn gather(&mut self) {
        self.optimizer.gather(&mut self.model, &mut self.devices).unwrap();
    }

    /// The bits of all masters.
    fn bits(&mut self) -> Vec<Vec<u32>> {
        self.gather();
        bits(&self.model)
    }
}

fn bits(model: &cuda::Model) -> Vec<Vec<u32>> {
    let slots = model.slots();
    slots.iter().map(|slot| model.values(slot).unwrap().iter().map(|x| x.to_bits()).collect()).collect()
}

/// What `work` gives on each of `size` ranks, which begin with `cpu`.
pub fn ranks<T: Send>(
    size: usize,
    open: Open<'_>,
    cpu: &Model,
    work: impl Fn(&mut Rank) -> T + Sync,
) -> Vec<T> {
    let temp = tempfile::tempdir().unwrap();
    let member = |name: &str, rank| {
        let (folder, patience) = (temp.path().join(name), Duration::from_secs(60));
        SharedMemory::join(&Member { folder, rank, size, patience }).unwrap()
    };
    let rank = |rank| {
        let device = open(rank);
        let model = on(cpu, &device, Purpose::Training);
        let trainer = cuda::Trainer::new(&model, 136).unwrap();
        let optimizer = cuda::ShardedAdamW::new(&model, ADAMW, rank, size).unwrap();
        let host = member("host", rank);
        let devices = Staged { on: device, host: member("devices", rank) };
        work(&mut Rank { model, trainer, optimizer, host, devices })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|n| scope.spawn(move || rank(n))).collect::<Vec<_>>();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// How far a movement of the weights may be from one rank's: gradients are rounded to bf16 in another order, and
/// AdamW makes much of small ones.
const MOVEMENT: f64 = 0.05;

/// Three steps of two ranks against one rank's; the bits of the model that every rank has after them.
pub fn two_are_one(open: Open<'_>, config: &LlamaConfig, scale: u32) -> Vec<Vec<u32>> {
    let cpu = model(config, 7);
    let alone = |micro_batches: usize| {
        let (mut model, mut trainer, mut optimizer) = start(&cpu, &open(0));
        let step = |_| {
            accumulate(&model, &mut trainer, scale, micro_batches);
            optimizer.step(&mut model, &mut trainer, 2e-3, Some(1.0)).unwrap().gradient_norm
        };
        let norms: Vec<f64> = (0..3).map(step).collect();
        (norms, saved(&model))
    };
    let (norms, one) = alone(2);
    let two = ranks(2, open, &cpu, |rank| {
        let norms: Vec<f64> = (0..3).map(|_| rank.step(scale)).collect();
        let bits = rank.bits();
        (norms, bits, saved(&rank.model))
    });
    assert!(two[0] == two[1], "the ranks differ");
    let (found, bits, both) = two.into_iter().next().unwrap();
    for (step, (norm, want)) in found.iter().zip(&norms).enumerate() {
        assert!((norm - want).abs() < 0.01 * want, "step {step}: norm {norm}, one rank says {want}");
    }
    let from = saved(&on(&cpu, &open(0), Purpose::Training));
    let moved = |to: &[Vec<f32>]| -> Vec<Vec<f32>> {
        let difference =
            |(to, from): (&Vec<f32>, &Vec<f32>)| to.iter().zip(from).map(|(t, f)| t - f).collect();
        to.iter().zip(&from).map(difference).collect()
    };
    let worst = |a: &[Vec<f32>], b: &[Vec<f32>]| {
        moved(a).iter().zip(&moved(b)).map(|(a, b)| distance(a, b)).fold(0.0, f64::max)
    };
    let (error, half) = (worst(&both, &one), worst(&alone(1).1, &one));
    println!("worst movement {error:.4}; of half the gradient {half:.4}");
    assert!(error < MOVEMENT, "two ranks move {error:.4} otherwise than one");
    assert!(half > 2.0 * MOVEMENT, "the bound would not see a rank that is left out: {half:.4}");
    assert!(error > 0.0, "two ranks add up otherwise; if not, they did not");
    bits
}

/// The values of a saved directory.
fn saved(model: &cuda::Model) -> Vec<Vec<f32>> {
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path(), Dtype::F32).unwrap();
    let cpu = Model::open(dir.path()).unwrap();
    cpu.weights().tensors().iter().map(|tensor| tensor.f32().to_vec()).collect()
}

/// Where only one rank has gradients, `size` ranks compute bit for bit what one does; frozen tensors stay.
pub fn shares_are_parts_of_the_whole(open: Open<'_>, config: &LlamaConfig, size: usize) {
    let frozen = |name: &str| name.contains("k_proj") || name.contains("mlp.up_proj");
    let cpu = model(config, 9);
    let (mut whole, mut trainer, mut optimizer) = start(&cpu, &open(0));
    let before = bits(&whole);
    optimizer.freeze(&whole, frozen);
    let mut norms = Vec::new();
    for _ in 0..2 {
        accumulate(&whole, &mut trainer, 1, 2);
        norms.push(optimizer.step(&mut whole, &mut trainer, 2e-3, None).unwrap().gradient_norm);
    }
    let want = bits(&whole);
    let found = ranks(size, open, &cpu, |rank| {
        rank.optimizer.freeze(&rank.model, frozen);
        for norm in &norms {
            if rank.rank().0 == size - 1 {
                accumulate(&rank.model, &mut rank.trainer, 1, 2);
            }
            let found = rank.update(None);
            assert!((found - norm).abs() < 1e-6 * norm, "{found}, one rank says {norm}");
        }
        rank.bits()
    });
    for (rank, found) in found.iter().enumerate() {
        for (((slot, now), want), then) in whole.slots().iter().zip(found).zip(&want).zip(&before) {
            assert!(now == want, "{} of rank {rank} of {size}", slot.name);
            assert_eq!(now == then, frozen(&slot.name), "{}", slot.name);
        }
    }
}

/// From files on, ranks do what they would have done without.
pub fn goes_on_from_files(open: Open<'_>, config: &LlamaConfig) {
    let (dir, cpu) = (tempfile::tempdir().unwrap(), model(config, 8));
    let part = |rank: usize, dir: &Path| dir.with_extension(format!("part-{rank}"));
    let through = ranks(2, open, &cpu, |rank| {
        rank.step(1);
        rank.gather();
        let (number, _) = rank.rank();
        if number == 0 {
            rank.model.save(dir.path(), Dtype::F32).unwrap();
        }
        rank.optimizer.save(&rank.model, &part(number, dir.path())).unwrap();
        rank.step(1);
        rank.bits()
    });
    let cpu = Model::open(dir.path()).unwrap();
    let again = ranks(2, open, &cpu, |rank| {
        let (number, size) = rank.rank();
        let from = part(number, dir.path());
        rank.optimizer = cuda::ShardedAdamW::open(&from, &rank.model, ADAMW, number, size).unwrap();
        assert_eq!(rank.optimizer.steps(), 1);
        let other = part(1 - number, dir.path());
        let theirs = cuda::ShardedAdamW::open(&other, &rank.model, ADAMW, number, 3);
        assert!(theirs.is_err(), "of another number of ranks");
        let before = rank.bits();
        rank.step(1);
        let after = rank.bits();
        assert_ne!(after, before);
        std::fs::remove_file(from).unwrap();
        after
    });
    assert!(again == through, "from files another run");
}

/// A gradient that is no number on one rank changes nothing on any, and is gone after it.
pub fn a_bad_gradient_is_skipped_by_all(open: Open<'_>, config: &LlamaConfig) {
    let cpu = model(config, 8);
    let found = ranks(2, open, &cpu, |rank| {
        let before = rank.bits();
        let (number, _) = rank.rank();
        rank.accumulate(1, if number == 1 { f32::INFINITY } else { 1.0 });
        assert!(!rank.update(Some(1.0)).is_finite());
        assert!(rank.bits() == before && rank.optimizer.steps() == 0);
        rank.step(1)
    });
    assert!(found[0].is_finite() && found[0] == found[1], "{found:?}");
}
