//! Small tables for people, on stderr.

/// Columns padded to their widest cell, the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let gap = if c == 0 { "" } else { "  " };
            let pad = " ".repeat(widths[c] - cell.chars().count());
            line += &if c == 0 { format!("{cell}{pad}") } else { format!("{gap}{pad}{cell}") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// `reason 3, other 1`.
pub fn tally<'a, K: AsRef<str> + 'a>(counts: impl IntoIterator<Item = (&'a K, &'a u64)>) -> String {
    let list: Vec<_> = counts.into_iter().map(|(name, n)| format!("{} {n}", name.as_ref())).collect();
    list.join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "2".into(), "x".into()]];
        assert_eq!(super::table(&rows), "a     10\nlong   2  x\n");
    }
}
