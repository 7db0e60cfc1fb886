//! Rows picked from a matrix.

use super::{Done, line, packs, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix};

/// `y[i] = x[rows[i]]`, zeros where `rows[i]` is `u32::MAX`: forward with the rows picked, backward
/// with their inverse.
pub fn gather(on: &dyn Engine, y: Matrix, x: Matrix, rows: Matrix) -> Done {
    let e = y.element;
    x.expect("x", e, x.rows, y.cols);
    rows.expect("rows", Element::U32, 1, y.rows);
    let arguments = Arguments::default().matrix(y).matrix(x).matrix(rows).size(y.rows).size(y.cols);
    run(on, "gather", &format!("gather_{}", e.suffix()), line(packs(y), 256), arguments)
}
