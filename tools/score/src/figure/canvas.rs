//! The few strokes that the figures are made of, in pixels from the upper left corner.

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub const GREY: RGBColor = RGBColor(110, 110, 110);
pub const PALE: RGBColor = RGBColor(222, 222, 222);
pub const INK: RGBColor = RGBColor(30, 30, 30);

/// Mean width of a character at font size 1, for leaving room; no font is measured.
const CHARACTER: f64 = 0.56;

pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * CHARACTER
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Centre,
    Right,
}

pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

fn pixel(x: f64, y: f64) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

fn failed(e: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("figure: {e}")
}

impl<'a> Canvas<'a> {
    pub fn new(svg: &'a mut String, width: f64, height: f64) -> anyhow::Result<Self> {
        let size = (width.ceil() as u32, height.ceil() as u32);
        let area = SVGBackend::with_string(svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        Ok(Self { area })
    }

    /// Centred vertically on `y`.
    pub fn text(
        &self,
        text: &str,
        x: f64,
        y: f64,
        size: f64,
        align: Align,
        colour: RGBColor,
    ) -> anyhow::Result<()> {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let across = match align {
            Align::Left => HPos::Left,
            Align::Centre => HPos::Center,
            Align::Right => HPos::Right,
        };
        let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(across, VPos::Center));
        self.area.draw(&Text::new(clean, pixel(x, y), style)).map_err(failed)
    }

    pub fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: u32) -> anyhow::Result<()> {
        let points: Vec<_> = points.iter().map(|(x, y)| pixel(*x, *y)).collect();
        self.area.draw(&PathElement::new(points, colour.stroke_width(width))).map_err(failed)
    }

    pub fn frame(&self, left: f64, top: f64, right: f64, bottom: f64) -> anyhow::Result<()> {
        let corners = [pixel(left, top), pixel(right, bottom)];
        self.area.draw(&Rectangle::new(corners, GREY.stroke_width(1))).map_err(failed)
    }

    /// The mark of a series: filled for odd numbers and hollow for even ones, so that two series differ without
    /// colour as well.
    pub fn mark(&self, x: f64, y: f64, index: usize) -> anyhow::Result<()> {
        let colour = super::colour(index);
        let at = pixel(x, y);
        let inner = if index.is_multiple_of(2) { WHITE } else { colour };
        self.area.draw(&Circle::new(at, 4, inner.filled())).map_err(failed)?;
        self.area.draw(&Circle::new(at, 4, colour.stroke_width(2))).map_err(failed)
    }

    pub fn finish(self) -> anyhow::Result<()> {
        self.area.present().map_err(failed)
    }
}
