//! Small tables for people, on stderr.

/// Columns padded to their widest cell; numbers to the right, words to the left. The first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let column = |c: usize| rows.iter().filter_map(move |r| r.get(c));
    let widths: Vec<usize> =
        (0..columns).map(|c| column(c).map(|s| s.chars().count()).max().unwrap_or(0)).collect();
    let numbers: Vec<bool> =
        (0..columns).map(|c| column(c).skip(1).all(|s| s.bytes().all(|b| b.is_ascii_digit()))).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            let gap = if c == 0 { "" } else { "  " };
            line += &if numbers[c] { format!("{gap}{pad}{cell}") } else { format!("{gap}{cell}{pad}") };
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
        let rows = [["name", "n", "why"], ["a", "10", "x"], ["long", "2", "word"]];
        let rows = rows.map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(super::table(&rows), "name   n  why\na     10  x\nlong   2  word\n");
    }
}
