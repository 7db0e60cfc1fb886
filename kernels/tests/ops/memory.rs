//! The ops whose time is that of their bytes.

use cognate_kernels::cuda::launch::Element;
use cognate_kernels::cuda::ops::{
    self, ClassifierInputs, NormInputs, PARTIAL_ROWS, Pooling, Residual, Rotation, Runs,
};
use cognate_kernels::rope::{Scaling, Table};
use cognate_kernels::{Device, Tensor, bias, classifier, embedding, gather, pooling, rmsnorm, rope, swiglu};

use super::machine::{Buffer, Draw, Machine, round};
use super::{close, tolerance};

fn zeros(rows: usize, cols: usize) -> Tensor {
    Tensor::zeros(Device::Cpu, rows, cols)
}

pub fn check_embedding(on: &dyn Machine, e: Element, rows: usize, cols: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let vocabulary = 1 + draw.below(40) as usize;
    let tokens = draw.list(rows, vocabulary);
    let table = draw.tensor(e, vocabulary, cols, 1.0);
    let mut want = zeros(rows, cols);
    embedding::forward(&mut want, &table, &tokens);
    let y = Buffer::poisoned(on, e, rows, cols);
    let (dev_table, dev_tokens) = (Buffer::of(on, e, &table), Buffer::list(on, &tokens));
    ops::embedding_forward(on, y.matrix, dev_table.matrix, dev_tokens.matrix).expect("launched");
    close("embedding", &y.read(), want.f32(), 0.0);

    let dy = draw.tensor(e, rows, cols, 1.0);
    let mut dtable = draw.tensor(e, vocabulary, cols, 1.0);
    let dev_dtable = Buffer::of(on, e, &dtable);
    embedding::backward(&mut dtable, &dy, &tokens);
    let runs = Runs::new(&tokens);
    let dev_dy = Buffer::of(on, e, &dy);
    let lists = [&runs.ids, &runs.starts, &runs.order].map(|list| Buffer::list(on, list));
    let [ids, starts, order] = &lists;
    ops::embedding_backward(on, dev_dtable.matrix, dev_dy.matrix, ids.matrix, starts.matrix, order.matrix)
        .expect("launched");
    close("embedding dtable", &dev_dtable.read(), dtable.f32(), tolerance(e));
}

pub fn check_gather(on: &dyn Machine, e: Element, rows: usize, cols: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let picked: Vec<u32> = (0..rows as u32).filter(|_| draw.below(2) == 0).collect();
    let x = draw.tensor(e, rows, cols, 1.0);
    let mut want = zeros(picked.len(), cols);
    gather::forward(&mut want, &x, &picked);
    let y = Buffer::poisoned(on, e, picked.len(), cols);
    ops::gather(on, y.matrix, Buffer::of(on, e, &x).matrix, Buffer::list(on, &picked).matrix)
        .expect("launched");
    close("gather", &y.read(), want.f32(), 0.0);

    let mut inverse = vec![u32::MAX; rows];
    picked.iter().enumerate().for_each(|(i, &row)| inverse[row as usize] = i as u32);
    let mut dx = zeros(rows, cols);
    gather::backward(&mut dx, &want, &picked);
    let dev_dx = Buffer::poisoned(on, e, rows, cols);
    ops::gather(on, dev_dx.matrix, y.matrix, Buffer::list(on, &inverse).matrix).expect("launched");
    close("gather dx", &dev_dx.read(), dx.f32(), 0.0);
}

/// Starts of documents that cover `rows`, some of them empty.
pub fn documents(draw: &mut Draw, rows: usize) -> Vec<u32> {
    let count = draw.below(4) as usize;
    let mut starts = draw.list(count, rows + 1);
    starts.extend([0, rows as u32]);
    starts.sort_unstable();
    starts
}

pub fn check_pooling(on: &dyn Machine, e: Element, rows: usize, cols: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let starts = documents(&mut draw, rows);
    let x = draw.tensor(e, rows, cols, 1.0);
    let (dev_x, dev_starts) = (Buffer::of(on, e, &x), Buffer::list(on, &starts));
    for (how, name) in [(Pooling::Mean, "mean"), (Pooling::Last, "last")] {
        let mut want = zeros(0, cols);
        match how {
            Pooling::Mean => pooling::mean(&mut want, &x, &starts),
            Pooling::Last => pooling::last(&mut want, &x, &starts),
        }
        let y = Buffer::poisoned(on, Element::F32, starts.len() - 1, cols);
        ops::pooling(on, y.matrix, dev_x.matrix, dev_starts.matrix, how).expect("launched");
        close(name, &y.read(), want.f32(), 2e-6);
    }
}

pub fn check_bias(on: &dyn Machine, e: Element, rows: usize, cols: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let (mut y, b) = (draw.tensor(e, rows, cols, 1.0), draw.tensor(e, 1, cols, 1.0));
    let dev_y = Buffer::of(on, e, &y);
    bias::forward(&mut y, &b);
    ops::bias_forward(on, dev_y.matrix, Buffer::of(on, e, &b).matrix).expect("launched");
    close("bias", &dev_y.read(), y.f32(), tolerance(e));

    let (dy, mut db) = (draw.tensor(e, rows, cols, 1.0), draw.tensor(e, 1, cols, 1.0));
    let dev_db = Buffer::of(on, e, &db);
    bias::backward(&mut db, &mut zeros(0, 0), &dy);
    let partial = Buffer::poisoned(on, Element::F32, PARTIAL_ROWS, cols);
    ops::bias_backward(on, dev_db.matrix, partial.matrix, Buffer::of(on, e, &dy).matrix).expect("launched");
    close("bias db", &dev_db.read(), db.f32(), tolerance(e));
}

pub fn check_rmsnorm(on: &dyn Machine, e: Element, rows: usize, cols: usize, seed: u64) {
    const EPS: f32 = 1e-5;
    let mut draw = Draw::new(seed);
    let (x, b) = (draw.tensor(e, rows, cols, 2.0), draw.tensor(e, rows, cols, 2.0));
    let w = draw.tensor(e, 1, cols, 1.0);
    let mut s = zeros(rows, cols);
    for ((s, x), b) in s.f32_mut().iter_mut().zip(x.f32()).zip(b.f32()) {
        *s = round(e, x + b);
    }
    let dev_w = Buffer::of(on, e, &w);
    let (dev_x, dev_b) = (Buffer::of(on, e, &x), Buffer::of(on, e, &b));
    let dev_s = Buffer::poisoned(on, e, rows, cols);
    let residual = Residual { s: dev_s.matrix, b: dev_b.matrix };
    for (input, residual) in [(&x, None), (&s, Some(residual))] {
        let (mut y, mut rstd) = (zeros(rows, cols), zeros(1, rows));
        rmsnorm::forward(&mut y, &mut rstd, input, &w, EPS);
        let dev_y = Buffer::poisoned(on, e, rows, cols);
        let dev_rstd = Buffer::poisoned(on, Element::F32, 1, rows);
        ops::rmsnorm_forward(on, dev_y.matrix, dev_rstd.matrix, dev_x.matrix, residual, dev_w.matrix, EPS)
            .expect("launched");
        close("rmsnorm rstd", &dev_rstd.read(), rstd.f32(), 1e-5);
        close("rmsnorm", &dev_y.read(), y.f32(), tolerance(e));
    }
    close("rmsnorm s", &dev_s.read(), s.f32(), 0.0);

    let mut rstd = zeros(1, rows);
    rmsnorm::forward(&mut zeros(rows, cols), &mut rstd, &s, &w, EPS);
    let (dy, mut dx) = (draw.tensor(e, rows, cols, 1.0), draw.tensor(e, rows, cols, 1.0));
    let mut dw = draw.tensor(e, 1, cols, 1.0);
    let (dev_dx, dev_dw) = (Buffer::of(on, e, &dx), Buffer::of(on, e, &dw));
    let (dev_dy, dev_rstd) = (Buffer::of(on, e, &dy), Buffer::of(on, Element::F32, &rstd));
    rmsnorm::backward(&mut dx, &mut dw, &mut zeros(0, 0), &dy, &s, &rstd, &w);
    let partial = Buffer::poisoned(on, Element::F32, PARTIAL_ROWS, cols);
    let inputs = NormInputs { dy: dev_dy.matrix, x: dev_s.matrix, rstd: dev_rstd.matrix, w: dev_w.matrix };
    ops::rmsnorm_backward(on, dev_dx.matrix, dev_dw.matrix, partial.matrix, inputs).expect("launched");
    close("rmsnorm dx", &dev_dx.read(), dx.f32(), tolerance(e));
    close("rmsnorm dw", &dev_dw.read(), dw.f32(), tolerance(e));
}

pub fn check_rope(on: &dyn Machine, e: Element, rows: usize, heads: usize, dim: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let positions = draw.list(rows, 300);
    let mut table = Table::new(Device::Cpu, dim, 10_000.0, Scaling::None);
    table.reserve(300);
    let (cos, sin) = table.values();
    let (cos, sin) = (Buffer::of(on, Element::F32, cos), Buffer::of(on, Element::F32, sin));
    let dev_positions = Buffer::list(on, &positions);
    let turned = heads.div_ceil(2);
    let mut qkv = draw.tensor(e, rows, heads * dim, 1.0);
    for rotation in [Rotation::Forward, Rotation::Backward] {
        let dev_qkv = Buffer::of(on, e, &qkv);
        let tables = (cos.matrix, sin.matrix);
        ops::rope(on, dev_qkv.matrix, turned, dev_positions.matrix, tables, rotation).expect("launched");
        match rotation {
            Rotation::Forward => rope::forward(&mut qkv, turned, &positions, &table),
            Rotation::Backward => rope::backward(&mut qkv, turned, &positions, &table),
        }
        close("rope", &dev_qkv.read(), qkv.f32(), tolerance(e));
        qkv = draw.tensor(e, rows, heads * dim, 1.0);
    }
}

pub fn check_swiglu(on: &dyn Machine, e: Element, rows: usize, cols: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let (gate_up, dy) = (draw.tensor(e, rows, 2 * cols, 2.0), draw.tensor(e, rows, cols, 1.0));
    let (mut y, mut dgate_up) = (zeros(rows, cols), zeros(rows, 2 * cols));
    swiglu::forward(&mut y, &gate_up);
    swiglu::backward(&mut dgate_up, &dy, &gate_up);
    let (dev_y, dev_in) = (Buffer::poisoned(on, e, rows, cols), Buffer::of(on, e, &gate_up));
    ops::swiglu_forward(on, dev_y.matrix, dev_in.matrix).expect("launched");
    close("swiglu", &dev_y.read(), y.f32(), tolerance(e));
    // In place.
    ops::swiglu_backward(on, dev_in.matrix, Buffer::of(on, e, &dy).matrix, dev_in.matrix).expect("launched");
    close("swiglu dgate_up", &dev_in.read(), dgate_up.f32(), tolerance(e));
}

pub fn check_classifier(on: &dyn Machine, e: Element, rows: usize, vocabulary: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let stride = vocabulary.next_multiple_of(e.pack()) + e.pack() * draw.below(3) as usize;
    let temperature = [1.0, 0.7, 1.3][draw.below(3) as usize];
    let targets = draw.list(rows, vocabulary);
    let mut logits = draw.tensor(e, rows, vocabulary, 4.0);
    let dlogp = draw.tensor(Element::F32, 1, rows, 1.0);
    // What stands in the padding must not matter.
    let mut padded = vec![f32::NAN; rows * stride];
    for (to, from) in padded.chunks_exact_mut(stride).zip(logits.f32().chunks_exact(vocabulary)) {
        to[..vocabulary].copy_from_slice(from);
    }
    let dev_logits = Buffer::floats(on, e, rows, stride, &padded);
    let dev_rows = Buffer::poisoned(on, Element::F32, rows, 3);
    let dev_targets = Buffer::list(on, &targets);
    ops::classifier_forward(
        on,
        dev_rows.matrix,
        dev_logits.matrix,
        dev_targets.matrix,
        vocabulary,
        temperature,
    )
    .expect("launched");
    let mut out = vec![[0.0; 3]; rows];
    classifier::forward(&mut logits, &mut out, &targets, temperature);
    let got = dev_rows.read();
    for column in 0..2 {
        let pick = |row: &[f32]| row[column];
        let got: Vec<f32> = got.chunks_exact(3).map(pick).collect();
        let want: Vec<f32> = out.iter().map(|row| row[column]).collect();
        close(["logprob", "entropy"][column], &got, &want, 2e-5);
    }
    let probabilities: Vec<Vec<f32>> = logits
        .f32()
        .chunks_exact(vocabulary)
        .zip(&out)
        .map(|(row, out)| row.iter().map(|e| e * out[2]).collect())
        .collect();
    classifier::backward(&mut logits, &out, dlogp.f32(), &targets, temperature);
    let dev_dlogp = Buffer::of(on, Element::F32, &dlogp);
    // By the log-sum-exp the derivative of every logit is p dz / tau.
    let dz = (draw.below(2) == 0).then(|| draw.tensor(Element::F32, 1, rows, 1.0));
    if let Some(dz) = &dz {
        let rows = logits.f32_mut().chunks_exact_mut(vocabulary).zip(&probabilities);
        for ((row, p), dz) in rows.zip(dz.f32()) {
            row.iter_mut().zip(p).for_each(|(l, p)| *l += p * dz / temperature);
        }
    }
    let dev_dz = dz.as_ref().map(|dz| Buffer::of(on, Element::F32, dz));
    let inputs = ClassifierInputs {
        rows: dev_rows.matrix,
        dlogp: dev_dlogp.matrix,
        dz: dev_dz.as_ref().map(|b| b.matrix),
        targets: dev_targets.matrix,
    };
    ops::classifier_backward(on, dev_logits.matrix, inputs, vocabulary, temperature).expect("launched");
    for (got, want) in dev_logits.read().chunks_exact(stride).zip(logits.f32().chunks_exact(vocabulary)) {
        close("dlogits", &got[..vocabulary], want, if e == Element::Bf16 { 8e-3 } else { 1e-4 });
        assert!(got[vocabulary..].iter().all(|&x| x == 0.0), "padding has no gradient");
    }
}

/// A sum in fp32 joins a bf16 gradient and is cleared.
pub fn check_fold(on: &dyn Machine, rows: usize, cols: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let g = draw.tensor(Element::Bf16, rows, cols, 1.0);
    let sum = draw.tensor(Element::F32, rows, cols, 1.0);
    let (dev_g, dev_sum) = (Buffer::of(on, Element::Bf16, &g), Buffer::of(on, Element::F32, &sum));
    ops::classifier_fold(on, dev_g.matrix, dev_sum.matrix).expect("launched");
    let want: Vec<f32> = g.f32().iter().zip(sum.f32()).map(|(g, s)| round(Element::Bf16, g + s)).collect();
    close("folded", &dev_g.read(), &want, 0.0);
    assert!(dev_sum.read().iter().all(|&x| x == 0.0), "the sum is cleared");
}
