//! Lines over a common horizontal axis, a panel a quantity.

use super::canvas::{Align, Canvas, GREY, INK, PALE, text_width};
use super::{Series, colour, ticks};

const PANEL: (f64, f64) = (330.0, 220.0);
const GAP: (f64, f64) = (76.0, 84.0);
const SIZE: f64 = 13.0;
/// More points than this are drawn without marks.
const MARKED: usize = 16;

#[derive(Debug, Clone)]
pub struct Line {
    /// Index into [`LinePlot::series`].
    pub series: usize,
    /// Ordered by x.
    pub points: Vec<(f64, f64)>,
}

#[derive(Debug)]
pub struct LinePanel {
    pub title: String,
    pub lines: Vec<Line>,
}

#[derive(Debug)]
pub struct LinePlot {
    pub title: String,
    pub x_axis: String,
    pub series: Vec<Series>,
    pub panels: Vec<LinePanel>,
    /// Panels side by side.
    pub columns: usize,
}

impl LinePlot {
    /// # Errors
    /// When the backend fails.
    pub fn svg(&self) -> anyhow::Result<String> {
        let columns = self.panels.len().clamp(1, self.columns.max(1));
        let rows = self.panels.len().div_ceil(columns).max(1);
        let head = 50.0 + 20.0 * self.series.len() as f64;
        let width = 20.0 + columns as f64 * (PANEL.0 + GAP.0);
        let names = self.series.iter().map(|s| text_width(&s.name, SIZE) + 60.0);
        let width = names.fold(width.max(text_width(&self.title, 17.0) + 40.0), f64::max);
        let height = head + rows as f64 * (PANEL.1 + GAP.1);
        let mut svg = String::new();
        let canvas = Canvas::new(&mut svg, width, height)?;
        canvas.text(&self.title, 16.0, 20.0, 17.0, Align::Left, INK)?;
        for (i, series) in self.series.iter().enumerate() {
            let y = 46.0 + 20.0 * i as f64;
            canvas.line(&[(16.0, y), (36.0, y)], colour(series.index), 2)?;
            canvas.mark(26.0, y, series.index)?;
            canvas.text(&series.name, 44.0, y, SIZE, Align::Left, INK)?;
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let left = 20.0 + GAP.0 * 0.66 + (i % columns) as f64 * (PANEL.0 + GAP.0);
            let top = head + 24.0 + (i / columns) as f64 * (PANEL.1 + GAP.1);
            self.panel(&canvas, panel, left, top)?;
        }
        canvas.finish()?;
        Ok(svg)
    }

    fn panel(&self, canvas: &Canvas, panel: &LinePanel, left: f64, top: f64) -> anyhow::Result<()> {
        let (right, bottom) = (left + PANEL.0, top + PANEL.1);
        canvas.text(&panel.title, (left + right) / 2.0, top - 14.0, 14.0, Align::Centre, INK)?;
        let points = || panel.lines.iter().flat_map(|l| &l.points);
        let range = |of: fn(&(f64, f64)) -> f64| {
            points().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
        };
        if points().next().is_none() {
            return canvas.frame(left, top, right, bottom);
        }
        let (x_low, x_high) = range(|p| p.0);
        let (y_low, y_high) = range(|p| p.1);
        let (x_ticks, x_decimals) = ticks(x_low, x_high);
        let (y_ticks, y_decimals) = ticks(y_low, y_high);
        // Ticks may stand outside the data on the horizontal axis; the axis ends with the data.
        let x_high = if x_high > x_low { x_high } else { x_low + 1.0 };
        let (y_low, y_high) = (y_ticks[0], y_ticks[y_ticks.len() - 1]);
        let x = |v: f64| left + 10.0 + (v - x_low) / (x_high - x_low) * (PANEL.0 - 20.0);
        let y = |v: f64| bottom - 6.0 - (v - y_low) / (y_high - y_low) * (PANEL.1 - 12.0);
        for tick in x_ticks.iter().filter(|t| **t >= x_low - 1e-9 && **t <= x_high + 1e-9) {
            canvas.line(&[(x(*tick), top), (x(*tick), bottom)], PALE, 1)?;
            let text = format!("{tick:.x_decimals$}");
            canvas.text(&text, x(*tick), bottom + 12.0, 11.0, Align::Centre, GREY)?;
        }
        for tick in &y_ticks {
            canvas.line(&[(left, y(*tick)), (right, y(*tick))], PALE, 1)?;
            let text = format!("{tick:.y_decimals$}");
            canvas.text(&text, left - 6.0, y(*tick), 11.0, Align::Right, GREY)?;
        }
        canvas.frame(left, top, right, bottom)?;
        canvas.text(&self.x_axis, (left + right) / 2.0, bottom + 30.0, 12.0, Align::Centre, GREY)?;
        for line in &panel.lines {
            let index = self.series.get(line.series).map_or(0, |s| s.index);
            let path: Vec<_> = line.points.iter().map(|(a, b)| (x(*a), y(*b))).collect();
            canvas.line(&path, colour(index), 2)?;
            if path.len() <= MARKED {
                path.iter().try_for_each(|(a, b)| canvas.mark(*a, *b, index))?;
            }
        }
        Ok(())
    }
}
