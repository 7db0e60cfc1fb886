//! Rows of dots with intervals: a row an arm, a panel a language, panels on a grid.

use super::canvas::{Align, Canvas, GREY, INK, PALE, text_width};
use super::{Series, colour, ticks};
use crate::bootstrap::Interval;

const ROW: f64 = 34.0;
const PANEL: f64 = 215.0;
const GAP: f64 = 26.0;
const SIZE: f64 = 13.0;

/// Shares, drawn as per cent.
#[derive(Debug, Clone)]
pub struct Dot {
    /// Index into [`DotPlot::series`].
    pub series: usize,
    pub value: f64,
    pub interval: Option<Interval>,
}

#[derive(Debug)]
pub struct DotPanel {
    pub title: String,
    /// As many as the plot has rows.
    pub dots: Vec<Vec<Dot>>,
}

#[derive(Debug)]
pub struct DotPlot {
    pub title: String,
    /// What the horizontal axis measures.
    pub axis: String,
    pub rows: Vec<String>,
    pub series: Vec<Series>,
    /// A name and the panels of each row of the grid. Panels under each other share their axis.
    pub grid: Vec<(String, Vec<DotPanel>)>,
}

impl DotPlot {
    /// # Errors
    /// When the backend fails.
    pub fn svg(&self) -> anyhow::Result<String> {
        let columns = self.grid.iter().map(|(_, panels)| panels.len()).max().unwrap_or(0);
        let left = 24.0 + self.rows.iter().map(|r| text_width(r, SIZE)).fold(80.0, f64::max);
        let body = ROW * self.rows.len() as f64;
        let block = 26.0 + body + 52.0;
        let head = 66.0;
        let width = left + columns as f64 * (PANEL + GAP) + 10.0;
        let width = width.max(text_width(&self.title, 17.0) + 40.0);
        let names = self.grid.iter().any(|(name, _)| !name.is_empty());
        let named = if names { 20.0 } else { 0.0 };
        let height = head + self.grid.len() as f64 * (block + named) + 6.0;

        let mut svg = String::new();
        let canvas = Canvas::new(&mut svg, width, height)?;
        canvas.text(&self.title, 16.0, 20.0, 17.0, Align::Left, INK)?;
        let mut x = 22.0;
        for (i, series) in self.series.iter().enumerate() {
            canvas.line(&[(x - 8.0, 46.0), (x + 8.0, 46.0)], colour(series.index), 2)?;
            canvas.mark(x, 46.0, series.index)?;
            canvas.text(&series.name, x + 14.0, 46.0, SIZE, Align::Left, INK)?;
            x += 14.0 + text_width(&series.name, SIZE) + if i + 1 < self.series.len() { 30.0 } else { 0.0 };
        }
        for (row, (name, panels)) in self.grid.iter().enumerate() {
            let top = head + row as f64 * (block + named);
            if names {
                canvas.text(name, 16.0, top + 8.0, 14.0, Align::Left, INK)?;
            }
            let top = top + named + 26.0;
            for (i, label) in self.rows.iter().enumerate() {
                let y = top + (i as f64 + 0.5) * ROW;
                canvas.text(label, left - 12.0, y, SIZE, Align::Right, INK)?;
            }
            for (column, panel) in panels.iter().enumerate() {
                let at = left + column as f64 * (PANEL + GAP);
                self.panel(&canvas, panel, &self.axis_of(column), at, top, top + body)?;
            }
        }
        canvas.finish()?;
        Ok(svg)
    }

    fn axis_of(&self, column: usize) -> Axis {
        let panels = self.grid.iter().filter_map(|(_, panels)| panels.get(column));
        let dots = panels.flat_map(|p| p.dots.iter().flatten());
        let high = dots.map(|d| d.interval.map_or(d.value, |i| i.high.max(d.value))).fold(0.01, f64::max);
        let (ticks, decimals) = ticks(0.0, high * 100.0);
        Axis { ticks, decimals }
    }

    fn panel(
        &self,
        canvas: &Canvas,
        panel: &DotPanel,
        axis: &Axis,
        left: f64,
        top: f64,
        bottom: f64,
    ) -> anyhow::Result<()> {
        let right = left + PANEL;
        canvas.text(&panel.title, (left + right) / 2.0, top - 12.0, 14.0, Align::Centre, INK)?;
        for tick in &axis.ticks {
            let x = axis.x(*tick, left);
            canvas.line(&[(x, top), (x, bottom)], PALE, 1)?;
            let text = format!("{tick:.*}", axis.decimals);
            canvas.text(&text, x, bottom + 12.0, 11.0, Align::Centre, GREY)?;
        }
        canvas.frame(left, top, right, bottom)?;
        canvas.text(&self.axis, (left + right) / 2.0, bottom + 30.0, 12.0, Align::Centre, GREY)?;
        let count = self.series.len().max(1) as f64;
        for (i, dots) in panel.dots.iter().enumerate() {
            let middle = top + (i as f64 + 0.5) * ROW;
            let place = |dot: &Dot| {
                let centre = if dots.len() == 1 { dot.series as f64 } else { (count - 1.0) / 2.0 };
                let shift = (dot.series as f64 - centre) * (ROW * 0.6 / count);
                (axis.x(dot.value * 100.0, left), middle + shift)
            };
            if dots.is_empty() {
                canvas.text("—", left + 12.0, middle, SIZE, Align::Centre, GREY)?;
            }
            for pair in dots.windows(2) {
                canvas.line(&[place(&pair[0]), place(&pair[1])], GREY, 1)?;
            }
            for dot in dots {
                let (x, y) = place(dot);
                let index = self.series.get(dot.series).map_or(0, |s| s.index);
                if let Some(interval) = dot.interval {
                    let ends = [interval.low, interval.high].map(|v| (axis.x(v * 100.0, left), y));
                    canvas.line(&ends, colour(index), 2)?;
                }
                canvas.mark(x, y, index)?;
            }
        }
        Ok(())
    }
}

/// From the first to the last tick over the width of a panel, with a little room at both ends.
struct Axis {
    ticks: Vec<f64>,
    decimals: usize,
}

impl Axis {
    fn x(&self, value: f64, left: f64) -> f64 {
        let (low, high) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        left + 8.0 + (value - low) / (high - low) * (PANEL - 16.0)
    }
}
