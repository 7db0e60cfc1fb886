//! Every kernel's speed on the GPU as a share of what the device was measured to do: `make gpu-bench`.
//! Random data, warm, medians; copies of a gibibyte and a bf16 product of 8192³ are the ceilings, and
//! are measured in the same run. Sizes are those of a training step of Llama-3.1-8B at 8,192 tokens.
//! Exit 3 where there is no GPU. Nothing here is asserted: `gpu-check` says what is right.

use std::process::ExitCode;
use std::rc::Rc;

use cognate_kernels::attention::Heads;
use cognate_kernels::cuda::attention_attempts::FORWARD;
use cognate_kernels::cuda::cublaslt::{Blas, Product};
use cognate_kernels::cuda::decode_plan::Plan;
use cognate_kernels::cuda::driver::Gpu;
use cognate_kernels::cuda::launch::Element::{self, Bf16, F32, F64, U16, U32};
use cognate_kernels::cuda::launch::{CudaError, Matrix};
use cognate_kernels::cuda::ops::{self, *};
use cognate_kernels::decode_attention::{PAGE, Span};
use cognate_random::Key;

type Done = Result<(), CudaError>;

/// Buffers live until the end of the run.
struct Bench<'g> {
    gpu: &'g Gpu,
    copies: f64,
    products: f64,
}

impl Bench<'_> {
    fn raw(&self, element: Element, rows: usize, cols: usize, bytes: &[u8]) -> Matrix {
        assert_eq!(bytes.len(), rows * cols * element.size());
        let address = self.gpu.allocate(bytes.len()).expect("device memory");
        // SAFETY: allocated above with this size, and never freed.
        unsafe {
            self.gpu.write(address, bytes).expect("written");
            Matrix::new(address, rows, cols, element)
        }
    }

    fn list(&self, rows: usize, values: &[u32]) -> Matrix {
        self.raw(U32, rows, values.len() / rows, bytemuck::cast_slice(values))
    }

    /// Values in about ±1.
    fn random(&self, element: Element, rows: usize, cols: usize) -> Matrix {
        // A block of random values, repeated: drawing gigabytes would take longer than the run.
        let mut stream = Key::new(1).with("bench").stream();
        let mut block = Vec::new();
        for _ in 0..1 << 16 {
            let x = stream.uniform() as f32 * 2.0 - 1.0;
            match element {
                Bf16 => block.extend(half::bf16::from_f32(x).to_le_bytes()),
                F32 => block.extend(x.to_le_bytes()),
                _ => block.resize(block.len() + element.size(), 0),
            }
        }
        let total = rows * cols * element.size();
        let mut bytes = Vec::with_capacity(total);
        while bytes.len() < total {
            bytes.extend_from_slice(&block[..block.len().min(total - bytes.len())]);
        }
        self.raw(element, rows, cols, &bytes)
    }

    /// The median time of one call, in seconds, of `runs` after three to warm up.
    fn seconds(&self, runs: usize, call: impl Fn() -> Done) -> Result<f64, CudaError> {
        let flags = cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
        let fault = |e: cudarc::driver::DriverError| CudaError::Driver {
            place: "timing".into(),
            reason: format!("{e:?}"),
        };
        let mut times = Vec::new();
        for i in 0..runs + 3 {
            let start = self.gpu.stream().record_event(Some(flags)).map_err(fault)?;
            call()?;
            let end = self.gpu.stream().record_event(Some(flags)).map_err(fault)?;
            self.gpu.synchronize()?;
            if i >= 3 {
                times.push(f64::from(start.elapsed_ms(&end).map_err(fault)?) / 1e3);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn bytes(&self, name: &str, bytes: f64, call: impl Fn() -> Done) {
        match self.seconds(20, call) {
            Ok(s) => println!(
                "{name:<26} {:>9.1} us {:>9.0} GB/s    {:>5.1} % of copies",
                s * 1e6,
                bytes / s / 1e9,
                100.0 * bytes / s / self.copies
            ),
            Err(error) => println!("{name:<26} FAILED: {error}"),
        }
    }

    fn flops(&self, name: &str, flops: f64, call: impl Fn() -> Done) {
        match self.seconds(10, call) {
            Ok(s) => println!(
                "{name:<26} {:>9.1} us {:>9.1} TFLOP/s {:>5.1} % of products",
                s * 1e6,
                flops / s / 1e12,
                100.0 * flops / s / self.products
            ),
            Err(error) => println!("{name:<26} FAILED: {error}"),
        }
    }
}

fn memory_bound(b: &Bench) {
    let (t, c, f, v) = (8192usize, 4096usize, 14336usize, 128_256usize);
    let gpu = b.gpu;
    let (x, y, z) = (b.random(Bf16, t, c), b.random(Bf16, t, c), b.random(Bf16, t, c));
    let (w, dw) = (b.random(Bf16, 1, c), b.random(Bf16, 1, c));
    let (rstd, partial) = (b.random(F32, 1, t), b.random(F32, PARTIAL_ROWS, c));
    let size = (t * c * 2) as f64;
    let table = b.random(Bf16, v, c);
    let tokens: Vec<u32> = (0..t as u32).map(|i| i.wrapping_mul(2_654_435_761) % v as u32).collect();
    let dev_tokens = b.list(1, &tokens);
    b.bytes("embedding", 2.0 * size, || ops::embedding_forward(gpu, y, table, dev_tokens));
    let runs = Runs::new(&tokens);
    let (ids, starts, order) = (b.list(1, &runs.ids), b.list(1, &runs.starts), b.list(1, &runs.order));
    b.bytes("embedding backward", 3.0 * size, || ops::embedding_backward(gpu, table, y, ids, starts, order));
    let residual = Some(Residual { s: z, b: y });
    b.bytes("rmsnorm, residual", 4.0 * size, || ops::rmsnorm_forward(gpu, y, rstd, x, residual, w, 1e-5));
    let inputs = NormInputs { dy: y, x, rstd, w };
    b.bytes("rmsnorm backward", 4.0 * size, || ops::rmsnorm_backward(gpu, z, dw, partial, inputs));
    let qkv = b.random(Bf16, t, 6144);
    let positions = b.list(1, &(0..t as u32).collect::<Vec<_>>());
    let tables = (b.random(F32, t, 64), b.random(F32, t, 64));
    let turned = (t * 40 * 128 * 2) as f64;
    b.bytes("rope", 2.0 * turned, || ops::rope(gpu, qkv, 40, positions, tables, Rotation::Forward));
    let (gate_up, hidden) = (b.random(Bf16, t, 2 * f), b.random(Bf16, t, f));
    let wide = (t * f * 2) as f64;
    b.bytes("swiglu", 3.0 * wide, || ops::swiglu_forward(gpu, hidden, gate_up));
    b.bytes("swiglu backward", 5.0 * wide, || ops::swiglu_backward(gpu, gate_up, hidden, gate_up));
    let (chunk, rows) = (b.random(Bf16, 1024, v), b.random(F32, 1024, 3));
    let (targets, dlogp) = (b.list(1, &tokens[..1024]), b.random(F32, 1, 1024));
    let logits = (1024 * v * 2) as f64;
    b.bytes("classifier", logits, || ops::classifier_forward(gpu, rows, chunk, targets, v, 1.0));
    b.bytes("classifier backward", 2.0 * logits, || {
        ops::classifier_backward(gpu, chunk, ClassifierInputs { rows, dlogp, dz: None, targets }, v, 1.0)
    });
    let n = 1usize << 28;
    let one = |element| b.random(element, 1, n);
    let (w, g, m, moment, rest) = (one(Bf16), one(Bf16), one(Bf16), one(Bf16), one(U16));
    let (scale, out) = (b.raw(F32, 1, 2, bytemuck::cast_slice(&[0.0f32, 0.5])), b.random(F32, 1, 2));
    let sums = b.random(F64, 1, n / NORM_BLOCK);
    b.bytes("gradient norm", 2.0 * n as f64, || ops::grad_norm(gpu, out, sums, &[g], Some(1.0)));
    let state = State { w, remainder: Some(rest), g, m, v: moment };
    let step = Step {
        lr: 1e-5,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        bias1: 0.1,
        bias2: 0.05,
        step: 1,
        seed: 1,
        first: 0,
    };
    b.bytes("adamw", 20.0 * n as f64, || ops::adamw(gpu, state, scale, step));
    let (base, delta) = (Master { weight: m, remainder: rest }, b.random(F32, 1, n));
    let merged = Master { weight: w, remainder: one(U16) };
    b.bytes("adapter operand", 6.0 * n as f64, || ops::adapter_operand(gpu, g, delta, 2.0));
    b.bytes("adapter merge", 12.0 * n as f64, || ops::adapter_merge(gpu, merged, base, delta, 2.0));
    let many = b.random(F32, 256, v);
    let keys: Vec<u8> = (0..256u64).flat_map(u64::to_le_bytes).collect();
    let keys = b.raw(Element::U64, 1, 256, &keys);
    let drawn = b.list(256, &[0; 3 * 256]);
    for (name, k, p) in [("sampling", 0u32, 1.0f32), ("sampling top-k, top-p", 50, 0.9)] {
        let options = b.list(1, &[1.0f32.to_bits(), k, p.to_bits()]);
        b.bytes(name, (256 * v * 4) as f64, || ops::sample(gpu, drawn, many, options, (keys, keys), v));
    }
}

fn attention(b: &Bench) {
    let gpu = b.gpu;
    for (t, dim) in [(8192usize, 128usize), (8192, 64), (2048, 128)] {
        let heads = Heads { query: 32, key: 8, dim };
        let rows = 16384;
        let starts: Vec<u32> = (0..=rows / t).map(|i| (i * t) as u32).collect();
        let pairs = rows as f64 * t as f64 / 2.0 * 32.0;
        let (qkv, dqkv) = (b.random(Bf16, rows, heads.row()), b.random(Bf16, rows, heads.row()));
        let (out, dout) = (b.random(Bf16, rows, heads.out()), b.random(Bf16, rows, heads.out()));
        let (lse, delta) = (b.random(F32, rows, 32), b.random(F32, rows, 32));
        let lists = [ops::query_tiles(&starts), ops::key_tiles(&starts)];
        let [queries, keys] = lists.map(|l| b.list(l.len() / 3, &l));
        b.flops(&format!("attention {t} x {dim}"), 4.0 * dim as f64 * pairs, || {
            ops::attention_forward(gpu, out, lse, qkv, queries, heads)
        });
        let inputs = AttentionInputs { dout, qkv, out, lse, queries, keys };
        // By convention 2.5 times the forward, whatever is computed twice.
        b.flops(&format!("attention backward {t} x {dim}"), 10.0 * dim as f64 * pairs, || {
            ops::attention_backward(gpu, dqkv, delta, inputs, heads)
        });
        if !gpu.name().ends_with("(sm_90a)") {
            println!("attention sm90a: NOT RUN: not this architecture");
            continue;
        }
        let lists = [ops::query_tiles_sm90a(&starts), ops::key_tiles_sm90a(&starts)];
        let [queries, keys] = lists.map(|l| b.list(l.len() / 3, &l));
        // The numbered attempts, the shipped one last.
        for (attempt, forward) in FORWARD {
            b.flops(&format!("sm90a {attempt}, {t} x {dim}"), 4.0 * dim as f64 * pairs, || {
                forward(gpu, out, lse, qkv, queries, heads)
            });
        }
        let inputs = AttentionInputs { queries, keys, ..inputs };
        b.flops(&format!("backward sm90a {t} x {dim}"), 10.0 * dim as f64 * pairs, || {
            ops::attention_backward_sm90a(gpu, dqkv, delta, inputs, heads)
        });
    }
}

fn decode(b: &Bench) {
    let (gpu, heads) = (b.gpu, Heads { query: 32, key: 8, dim: 128 });
    for (batch, length, shared) in
        [(1usize, 8192usize, 0usize), (64, 1024, 0), (256, 1024, 0), (256, 1024, 512)]
    {
        let common = shared / PAGE;
        let own = length / PAGE - common;
        let tables: Vec<Vec<u32>> = (0..batch)
            .map(|s| (0..common).chain((0..own).map(|p| common + s * own + p)).map(|p| p as u32).collect())
            .collect();
        let spans: Vec<Span> = tables.iter().map(|pages| Span { pages, length }).collect();
        let plan = Plan::new(&spans, 4);
        let pages = common + batch * own;
        let cache = PagedCache {
            keys: b.random(Bf16, pages, heads.key * heads.dim * PAGE),
            values: b.random(Bf16, pages, heads.key * heads.dim * PAGE),
        };
        let lists = PlanLists {
            pages: b.list(1, &plan.pages),
            items: b.list(plan.count(), &plan.items),
            members: b.list(1, &plan.members),
            parts_first: b.list(1, &plan.parts_first),
        };
        let (qkv, out) = (b.random(Bf16, batch, heads.row()), b.random(Bf16, batch, heads.out()));
        let partial = b.random(F32, plan.parts() * heads.query, heads.dim + 2);
        let bytes = (pages * PAGE * heads.key * heads.dim * 4) as f64;
        b.bytes(&format!("decode {batch} x {length}, {shared} shared"), bytes, || {
            ops::decode_attention(gpu, (out, partial), qkv, cache, &plan, lists, heads)
        });
    }
}

fn main() -> ExitCode {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => Rc::new(gpu),
        Err(error) => {
            eprintln!("gpu-bench: NOT RUN: {error}");
            return ExitCode::from(3);
        }
    };
    println!("{}", gpu.name());
    let mut b = Bench { gpu: &gpu, copies: f64::NAN, products: f64::NAN };
    let half = 1usize << 29;
    let (from, to) = (b.random(Bf16, 1, half), b.random(Bf16, 1, half));
    let copy = || {
        // SAFETY: both hold a gibibyte.
        unsafe {
            cudarc::driver::result::memcpy_dtod_async(
                to.address(),
                from.address(),
                1 << 30,
                gpu.stream().cu_stream(),
            )
        }
        .map_err(|e| CudaError::Driver { place: "copying".into(), reason: format!("{e:?}") })
    };
    match b.seconds(20, copy) {
        Ok(s) => b.copies = (2u64 << 30) as f64 / s,
        Err(error) => println!("copies: FAILED: {error}"),
    }
    match Blas::new(&gpu) {
        Ok(blas) => {
            let [x, w, y] = [(); 3].map(|()| b.random(Bf16, 8192, 8192));
            match b.seconds(20, || blas.product(Product::Forward, y, (x, w), false, None)) {
                Ok(s) => b.products = 2.0 * 8192f64.powi(3) / s,
                Err(error) => println!("products: FAILED: {error}"),
            }
        }
        Err(error) => println!("products: NOT RUN: {error}"),
    }
    println!("ceilings: copies {:.0} GB/s, bf16 products {:.0} TFLOP/s", b.copies / 1e9, b.products / 1e12);
    memory_bound(&b);
    attention(&b);
    decode(&b);
    ExitCode::SUCCESS
}
