//! One vector a document.

use super::{Done, packs, plane, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix};

/// What [`pooling`] takes of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    Last,
}

/// One vector a document: `y` `[D, C]` fp32.
pub fn pooling(on: &dyn Engine, y: Matrix, x: Matrix, starts: Matrix, how: Pooling) -> Done {
    let e = x.element;
    y.expect("y", Element::F32, y.rows, x.cols);
    starts.expect("starts", Element::U32, 1, y.rows + 1);
    packs(x);
    let how = match how {
        Pooling::Mean => "mean",
        Pooling::Last => "last",
    };
    let arguments = Arguments::default().matrix(y).matrix(x).matrix(starts).size(x.cols);
    run(on, "pooling", &format!("pooling_{how}_{}", e.suffix()), plane(y.rows, x.cols, e), arguments)
}
