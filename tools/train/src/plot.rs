//! A run's curves as one SVG: a small panel for each metric over the steps.

use std::fmt::Write;

use cognate_records::Metric;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 140.0;
const GAP: f64 = 50.0;
const COLUMNS: usize = 3;

/// Draws every series of `metrics` with at least two points, in the order of their names' first appearance.
pub fn draw(metrics: &[Metric]) -> String {
    let mut series: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for metric in metrics.iter().filter(|m| m.value.is_finite()) {
        let Some(step) = metric.step else { continue };
        let point = (step as f64, metric.value);
        match series.iter_mut().find(|s| s.0 == metric.name) {
            Some((_, points)) => points.push(point),
            None => series.push((&metric.name, vec![point])),
        }
    }
    series.retain(|s| s.1.len() > 1);
    let rows = series.len().div_ceil(COLUMNS).max(1);
    let (width, height) = (COLUMNS as f64 * (WIDTH + GAP) + GAP, rows as f64 * (HEIGHT + GAP) + GAP / 2.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, (name, points)) in series.iter().enumerate() {
        let left = GAP + (i % COLUMNS) as f64 * (WIDTH + GAP);
        let top = GAP / 2.0 + (i / COLUMNS) as f64 * (HEIGHT + GAP);
        panel(&mut svg, name, points, left, top);
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, name: &str, points: &[(f64, f64)], left: f64, top: f64) {
    let range = |pick: &dyn Fn(&(f64, f64)) -> f64| {
        let low = points.iter().map(pick).fold(f64::INFINITY, f64::min);
        let high = points.iter().map(pick).fold(f64::NEG_INFINITY, f64::max);
        // A flat line runs through the middle.
        if low < high { (low, high) } else { (low - 1.0, high + 1.0) }
    };
    let ((x0, x1), (y0, y1)) = (range(&|p| p.0), range(&|p| p.1));
    let line: Vec<String> = points
        .iter()
        .map(|(x, y)| {
            let (across, up) = ((x - x0) / (x1 - x0), (y - y0) / (y1 - y0));
            format!("{:.1},{:.1}", left + across * WIDTH, top + HEIGHT - up * HEIGHT)
        })
        .collect();
    let (bottom, name) = (top + HEIGHT, name.replace('&', "&amp;").replace('<', "&lt;"));
    let text = |svg: &mut String, x: f64, y: f64, anchor: &str, text: &str| {
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    };
    let _ = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#ccc\"/>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#1f77b4\"/>",
        line.join(" ")
    );
    text(svg, left, top - 5.0, "start", &format!("<tspan font-weight=\"bold\">{name}</tspan>"));
    text(svg, left - 4.0, top + 8.0, "end", &short(y1));
    text(svg, left - 4.0, bottom, "end", &short(y0));
    text(svg, left, bottom + 12.0, "start", &short(x0));
    text(svg, left + WIDTH, bottom + 12.0, "end", &format!("step {}", short(x1)));
}

/// Four significant digits at most.
fn short(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e6).contains(&x.abs()) {
        return format!("{x:.2e}");
    }
    let digits = if x.abs() >= 1000.0 { 0 } else { 3 };
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_has_a_panel_and_its_range() {
        let metric = |name: &str, step, value| Metric {
            name: name.into(),
            value,
            step: Some(step),
            ..Metric::default()
        };
        let svg = draw(&[
            metric("loss", 1, 2.5),
            metric("a<b", 1, 7.0),
            metric("loss", 9, 0.25),
            metric("a<b", 2, 7.0),
            metric("once", 1, 1.0),
        ]);
        assert_eq!(svg.matches("<polyline").count(), 2, "one point makes no line");
        assert!(
            svg.contains(">2.5</text>") && svg.contains(">0.25</text>") && svg.contains("step 9"),
            "{svg}"
        );
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // The first point is the highest, the last the lowest.
        assert!(svg.contains("50.0,25.0 350.0,165.0"), "{svg}");
        assert!(draw(&[]).ends_with("</svg>\n"));
    }
}
