//! Figures as SVG: dots with intervals, and lines. Drawn in pixels on plotters' SVG backend, with layout of our own, so
//! that bytes depend on the numbers alone and on no font of the machine.

mod canvas;
mod dots;
mod lines;

pub use dots::{Dot, DotPanel, DotPlot};
pub use lines::{Line, LinePanel, LinePlot};

use plotters::style::RGBColor;

/// Okabe and Ito's palette, told apart by people with any colour vision; its yellow is left out, too pale for lines.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// A name in the legend with its mark: colour, and from the eighth on also a hollow or square mark.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub index: usize,
}

impl Series {
    pub fn new(name: String, index: usize) -> Self {
        Self { name, index }
    }
}

fn colour(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// Round numbers from `low` to at least `high`, about five of them, and how many decimals they need.
fn ticks(low: f64, high: f64) -> (Vec<f64>, usize) {
    let span = if high > low { high - low } else { 1.0 };
    let rough = span / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    ((first..=last.max(first + 1)).map(|i| i as f64 * step).collect(), decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_range() {
        let (t, decimals) = ticks(0.0, 0.43);
        assert_eq!((t.first(), decimals), (Some(&0.0), 1));
        assert!(*t.last().unwrap() >= 0.43 && t.len() <= 7, "{t:?}");
        let (t, _) = ticks(-3.2, 7.9);
        assert!(t[0] <= -3.2 && *t.last().unwrap() >= 7.9, "{t:?}");
        assert!(ticks(2.0, 2.0).0.len() >= 2);
    }
}
