//! Every kernel on the GPU against the CPU op: `make gpu-check`. Fresh random data each run (the seed
//! is printed, and may be given as the only argument), outputs full of NaN before each launch, every
//! check twice and bitwise the same. Exit 1 where one fails, 3 where there is no GPU.

#[path = "../tests/ops/mod.rs"]
mod ops;

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;

use cognate_kernels::attention::Heads;
use cognate_kernels::cuda::cublaslt::{Blas, Product};
use cognate_kernels::cuda::driver::Gpu;
use cognate_kernels::cuda::launch::Element::{Bf16, F32};
use cognate_kernels::cuda::launch::{Arguments, CudaError, Engine, Matrix, Shape, TensorMap};
use cognate_kernels::{Device, Tensor, matmul};
use ops::machine::{Buffer, Draw, Machine};
use ops::{attention, memory, optimizer, sampling};

/// The device, and a hash of everything read from it.
struct Watched<'g> {
    gpu: &'g Gpu,
    digest: Cell<u64>,
}

impl Engine for Watched<'_> {
    fn launch(
        &self,
        source: &'static str,
        name: &str,
        shape: Shape,
        arguments: Arguments,
    ) -> Result<(), CudaError> {
        self.gpu.launch(source, name, shape, arguments)
    }

    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, CudaError> {
        self.gpu.tensor_map(matrix)
    }
}

impl Machine for Watched<'_> {
    fn allocate(&self, bytes: usize) -> u64 {
        self.gpu.allocate(bytes).expect("device memory")
    }

    fn free(&self, address: u64, _bytes: usize) {
        // SAFETY: buffers free what they allocated, once.
        unsafe { self.gpu.free(address) }.expect("freed");
    }

    fn write(&self, address: u64, data: &[u8]) {
        // SAFETY: buffers write within what they allocated.
        unsafe { self.gpu.write(address, data) }.expect("written");
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        // SAFETY: buffers read within what they allocated.
        unsafe { self.gpu.read(address, data) }.expect("read");
        let mut hasher = DefaultHasher::new();
        (self.digest.get(), &data).hash(&mut hasher);
        self.digest.set(hasher.finish());
    }
}

type Body<'c> = Box<dyn Fn(&dyn Machine, u64) + 'c>;
type Check<'c> = (&'c str, Body<'c>);

fn checks() -> Vec<Check<'static>> {
    let mut all: Vec<Check> = Vec::new();
    let mut add = |name, check: Body<'static>| all.push((name, check));
    for e in [Bf16, F32] {
        add("embedding", Box::new(move |on, s| memory::check_embedding(on, e, 3000, 4096, s)));
        add("gather", Box::new(move |on, s| memory::check_gather(on, e, 2000, 4096, s)));
        add("pooling", Box::new(move |on, s| memory::check_pooling(on, e, 2000, 1024, s)));
        add("bias", Box::new(move |on, s| memory::check_bias(on, e, 3000, 1536, s)));
        for cols in [576, 2048, 4096] {
            add("rmsnorm", Box::new(move |on, s| memory::check_rmsnorm(on, e, 1111, cols, s)));
        }
        add("rope", Box::new(move |on, s| memory::check_rope(on, e, 999, 12, 128, s)));
        add("swiglu", Box::new(move |on, s| memory::check_swiglu(on, e, 700, 14336, s)));
        add("classifier", Box::new(move |on, s| memory::check_classifier(on, e, 130, 128_256, s)));
        add("sampling", Box::new(move |on, s| sampling::check_sampling(on, e, 128_256, s)));
        add("sampling", Box::new(move |on, s| sampling::check_sampling(on, e, 777, s)));
    }
    add("fold", Box::new(|on, s| memory::check_fold(on, 4000, 4096, s)));
    add("policy loss", Box::new(|on, s| optimizer::check_policy_loss(on, 10_000, s)));
    for n in [24, 1_000_000] {
        add("update", Box::new(move |on, s| optimizer::check_update(on, n, s)));
        add("master weights", Box::new(move |on, s| optimizer::check_master(on, n, s)));
        add("norm", Box::new(move |on, s| optimizer::check_norm_bf16(on, n, s)));
        add("adapters", Box::new(move |on, s| optimizer::check_adapter(on, n, s)));
    }
    add("random rounding", Box::new(|on, s| optimizer::check_stochastic(on, 1 << 20, s)));
    for dim in [64, 128] {
        for heads in [Heads { query: 8, key: 2, dim }, Heads { query: 3, key: 3, dim }] {
            add("attention", Box::new(move |on, s| attention::check_attention(on, 1500, heads, s)));
            add(
                "attention sm90a",
                Box::new(move |on, s| attention::check_attention_sm90a(on, 1500, heads, s)),
            );
            add("backward sm90a", Box::new(move |on, s| attention::check_backward_sm90a(on, 1500, heads, s)));
            add("decode attention", Box::new(move |on, s| attention::check_decode(on, 9, 40, heads, s)));
        }
    }
    all
}

/// The library's products against crate `gemm`, in the three orientations.
fn check_products(gpu: &Rc<Gpu>, on: &dyn Machine, seed: u64) {
    let blas = Blas::new(gpu).expect("cuBLASLt");
    let mut draw = Draw::new(seed);
    let (t, n, k) = (256, 384, 128);
    for (input, output, shift) in
        [(Bf16, F32, 0), (Bf16, Bf16, 0), (F32, F32, 0), (Bf16, F32, 8), (F32, F32, 4)]
    {
        let x = draw.tensor(input, t, k, 1.0);
        let w = draw.tensor(input, n, k, 1.0);
        let dy = draw.tensor(input, t, n, 1.0);
        let zeros = |rows, cols| Tensor::zeros(Device::Cpu, rows, cols);
        let (mut y, mut dx, mut dw) = (zeros(t, n), zeros(t, k), draw.tensor(output, n, k, 1.0));
        let dev_w = Buffer::of(on, input, &w);
        let (dev_dy, dev_dw) = (Buffer::of(on, input, &dy), Buffer::of(on, output, &dw));
        // A part of a matrix, which may begin at any 16 bytes.
        let shifted = [&vec![0.0; shift], x.f32()].concat();
        let whole_x = Buffer::floats(on, input, 1, shifted.len(), &shifted);
        let dev_x = whole_x.matrix.part(shift, t, k);
        let dev_y = Buffer::poisoned(on, output, t, n);
        let dev_dx = Buffer::poisoned(on, output, t, k);
        matmul::forward(&mut y, &x, &w);
        matmul::backward_input(&mut dx, &dy, &w);
        matmul::backward_weight(&mut dw, &dy, &x);
        for (product, out, left, right, accumulate) in [
            (Product::Forward, &dev_y, dev_x, dev_w.matrix, false),
            (Product::Input, &dev_dx, dev_dy.matrix, dev_w.matrix, false),
            (Product::Weight, &dev_dw, dev_dy.matrix, dev_x, true),
        ] {
            blas.product(product, out.matrix, (left, right), accumulate, None).expect("multiplied");
        }
        let tolerance = ops::tolerance(output).max(1e-4);
        ops::close("y = x wT", &dev_y.read(), y.f32(), tolerance);
        ops::close("dx = dy w", &dev_dx.read(), dx.f32(), tolerance);
        ops::close("dw += dyT x", &dev_dw.read(), dw.f32(), tolerance);
    }
}

fn main() -> ExitCode {
    let given = std::env::args().nth(1).and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |d| d.as_nanos() as u64)
    });
    let gpu = match Gpu::open(0) {
        Ok(gpu) => Rc::new(gpu),
        Err(error) => {
            eprintln!("gpu-check: NOT RUN: {error}");
            return ExitCode::from(3);
        }
    };
    println!("{}\nseed {seed}", gpu.name());
    let mut failures = 0;
    let mut all = checks();
    all.push(("cuBLASLt", Box::new(|on, s| check_products(&gpu, on, s))));
    let hopper = gpu.name().ends_with("(sm_90a)");
    for (i, (name, check)) in all.iter().enumerate() {
        if name.ends_with("sm90a") && !hopper {
            println!("{name:<18} NOT RUN: not this architecture");
            continue;
        }
        let seed = seed.wrapping_add(i as u64);
        let run = || {
            let on = Watched { gpu: &gpu, digest: Cell::new(0) };
            check(&on, seed);
            on.digest.get()
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| (run(), run())));
        let verdict = match outcome {
            Ok((a, b)) if a == b => "ok",
            Ok(_) => "FAILED: two runs differ",
            Err(_) => "FAILED",
        };
        failures += usize::from(verdict != "ok");
        println!("{name:<18} {verdict}");
    }
    println!("{} checks, {failures} failed", all.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
