//! Embedding.

use super::{Done, line, packs, plane, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix};

/// `y[t] = table[tokens[t]]`.
pub fn embedding_forward(on: &dyn Engine, y: Matrix, table: Matrix, tokens: Matrix) -> Done {
    let e = y.element;
    table.expect("table", e, table.rows, y.cols);
    tokens.expect("tokens", Element::U32, 1, y.rows);
    let arguments = Arguments::default().matrix(y).matrix(table).matrix(tokens).size(y.rows).size(y.cols);
    run(on, "embedding", &format!("embedding_forward_{}", e.suffix()), line(packs(y), 256), arguments)
}

/// Positions sorted by token, for [`embedding_backward`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Distinct tokens, ascending.
    pub ids: Vec<u32>,
    /// Where each token's positions begin in `order`, and their end.
    pub starts: Vec<u32>,
    /// Positions, ascending within a token.
    pub order: Vec<u32>,
}

impl Runs {
    pub fn new(tokens: &[u32]) -> Self {
        let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
        order.sort_by_key(|&t| tokens[t as usize]);
        let mut runs = Runs { order, ..Runs::default() };
        for (i, &t) in runs.order.iter().enumerate() {
            if runs.ids.last() != Some(&tokens[t as usize]) {
                runs.ids.push(tokens[t as usize]);
                runs.starts.push(i as u32);
            }
        }
        runs.starts.push(tokens.len() as u32);
        runs
    }
}

/// `dtable[tokens[t]] += dy[t]`; `ids`, `starts`, `order` are [`Runs`] on the device.
pub fn embedding_backward(
    on: &dyn Engine,
    dtable: Matrix,
    dy: Matrix,
    ids: Matrix,
    starts: Matrix,
    order: Matrix,
) -> Done {
    let e = dy.element;
    dtable.expect("dtable", e, dtable.rows, dy.cols);
    order.expect("order", Element::U32, 1, dy.rows);
    starts.expect("starts", Element::U32, 1, ids.cols + 1);
    packs(dy);
    let arguments =
        Arguments::default().matrix(dtable).matrix(dy).matrix(ids).matrix(starts).matrix(order).size(dy.cols);
    let name = format!("embedding_backward_{}", e.suffix());
    run(on, "embedding", &name, plane(ids.cols, dy.cols, e), arguments)
}
