//! Sampling.

use super::{Done, packs, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix, Shape};

/// `out` `[R, 3]` of 32 bits (token, and two fp32: log-probability under the model, and under the
/// distribution drawn from) for `logits` `[R, *]`. `options` `[1 or R, 3]` of 32 bits: temperature
/// fp32, top-k, top-p fp32. `keys` and `counters` `[1, R]`: each row's random number.
pub fn sample(
    on: &dyn Engine,
    out: Matrix,
    logits: Matrix,
    options: Matrix,
    (keys, counters): (Matrix, Matrix),
    vocabulary: usize,
) -> Done {
    let e = logits.element;
    out.expect("out", Element::U32, logits.rows, 3);
    assert!(options.rows == 1 || options.rows == logits.rows, "options for all rows or one a row");
    options.expect("options", Element::U32, options.rows, 3);
    keys.expect("keys", Element::U64, 1, logits.rows);
    counters.expect("counters", Element::U64, 1, logits.rows);
    packs(logits);
    assert!(vocabulary > 0 && vocabulary <= logits.cols, "the vocabulary lies within the row");
    let arguments = Arguments::default()
        .matrix(out)
        .matrix(logits)
        .matrix(options)
        .size(usize::from(options.rows > 1))
        .matrix(keys)
        .matrix(counters)
        .size(vocabulary)
        .size(logits.cols);
    let shape = Shape { grid: [logits.rows as u32, 1, 1], block: 512, shared: 0 };
    run(on, "sampling", &format!("sampling_{}", e.suffix()), shape, arguments)
}
