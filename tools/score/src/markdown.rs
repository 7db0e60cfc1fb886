//! Markdown tables and the way numbers are printed in them.

use std::fmt::Write;

use crate::bootstrap::Interval;

pub const MISSING: &str = "—";

/// A table whose columns are padded, so that the source reads as well as the page.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns from here on are aligned right.
    numbers_from: usize,
}

impl Table {
    pub fn new(header: Vec<String>, numbers_from: usize) -> Self {
        Self { header, rows: Vec::new(), numbers_from }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clean = |text: &str| escape(text);
        let header: Vec<String> = self.header.iter().map(|c| clean(c)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|r| r.iter().map(|c| clean(c)).collect()).collect();
        let width = |i: usize| {
            let cells = rows.iter().filter_map(|r| r.get(i)).chain(header.get(i));
            cells.map(|c| c.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut text = String::from("|");
            for (i, width) in widths.iter().enumerate() {
                let cell = cells.get(i).map_or("", String::as_str);
                let _ = if i < self.numbers_from {
                    write!(text, " {cell:<width$} |")
                } else {
                    write!(text, " {cell:>width$} |")
                };
            }
            text
        };
        writeln!(f, "{}", line(&header))?;
        let mut rule = String::from("|");
        for (i, width) in widths.iter().enumerate() {
            rule += &"-".repeat(width + 1);
            rule += if i < self.numbers_from { "-|" } else { ":|" };
        }
        writeln!(f, "{rule}")?;
        rows.iter().try_for_each(|row| writeln!(f, "{}", line(row)))
    }
}

/// Labels come from files: a cell must not end the cell or the line, nor reach the terminal as control characters.
pub fn escape(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('|', "\\|")
}

/// `34.5` of 0.345.
pub fn percent(share: f64) -> String {
    minus(format!("{:.1}", share * 100.0))
}

/// `+3.5` of 0.035.
pub fn points(share: f64) -> String {
    minus(format!("{:+.1}", share * 100.0))
}

/// `[−0.4, +3.5]`, in points.
pub fn points_interval(interval: Interval) -> String {
    format!("[{}, {}]", points(interval.low), points(interval.high))
}

/// `[30.1, 38.0]`, in per cent.
pub fn percent_interval(interval: Interval) -> String {
    format!("[{}, {}]", percent(interval.low), percent(interval.high))
}

/// A true minus sign; a rounded zero has no sign.
pub fn minus(text: String) -> String {
    let zero = text.chars().filter(char::is_ascii_digit).all(|c| c == '0');
    if zero { text.trim_start_matches(['+', '-']).to_string() } else { text.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_plainly() {
        assert_eq!(
            (percent(0.3449), points(0.035), points(-0.012)),
            ("34.5".into(), "+3.5".into(), "−1.2".into())
        );
        assert_eq!((points(-0.0001), points(0.0)), ("0.0".into(), "0.0".into()));
        assert_eq!((minus("+0.0 %".into()), minus("-0.1 %".into())), ("0.0 %".into(), "−0.1 %".into()));
        assert_eq!(points_interval(Interval { low: -0.01, high: 0.02 }), "[−1.0, +2.0]");
    }

    #[test]
    fn cells_cannot_break_the_table() {
        let mut table = Table::new(vec!["a".into(), "b".into()], 1);
        table.row(vec!["x|y\n\u{1b}[2J".into(), "1".into()]);
        assert_eq!(table.to_string(), "| a         |   b |\n|-----------|----:|\n| x\\|y  [2J |   1 |\n");
    }
}
