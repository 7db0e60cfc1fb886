//! Which programs are written: `SPLIT:LANGUAGES=COUNT[@FIRST]`, as in `base:all=1.5` or `eval:python+ruby=1@200`.

use cognate_random::Key;

use crate::split::Shares;

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    split: String,
    /// Empty is all.
    languages: Vec<String>,
    count: f64,
    first: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan(Vec<Entry>);

impl Plan {
    /// # Errors
    /// When an entry is not of the form, or names a split or language that there is not.
    pub fn parse(entries: &[String], shares: &Shares, languages: &[String]) -> Result<Self, String> {
        entries.iter().map(|entry| parse(entry, shares, languages)).collect::<Result<_, _>>().map(Self)
    }

    /// How many programs in `language` the problem gets that is the `index`-th of its split. A count with a fraction
    /// is rounded up for that share of the problems.
    pub fn count(&self, split: &str, index: usize, language: &str, key: Key) -> u64 {
        let mut total = 0;
        for (i, entry) in self.0.iter().enumerate() {
            let here = entry.split == split
                && (entry.languages.is_empty() || entry.languages.iter().any(|l| l == language))
                && entry.first.is_none_or(|first| index < first);
            if here {
                let more = key.with("count").with(i).with(language).stream().chance(entry.count.fract());
                total += entry.count as u64 + u64::from(more);
            }
        }
        total
    }
}

fn parse(entry: &str, shares: &Shares, known: &[String]) -> Result<Entry, String> {
    let wrong = || format!("{entry:?} is not of the form SPLIT:LANGUAGES=COUNT[@FIRST]");
    let (split, rest) = entry.split_once(':').ok_or_else(wrong)?;
    let (names, count) = rest.split_once('=').ok_or_else(wrong)?;
    let (count, first) = match count.split_once('@') {
        Some((count, first)) => (count, Some(first.parse().map_err(|_| wrong())?)),
        None => (count, None),
    };
    let count: f64 = count.parse().map_err(|_| wrong())?;
    if !(0.0..=1000.0).contains(&count) {
        return Err(format!("{entry:?}: the count is not within 0 and 1000"));
    }
    if !shares.names().any(|name| name == split) {
        return Err(format!("{entry:?}: there is no split {split:?}"));
    }
    let mut languages = Vec::new();
    if names != "all" {
        for name in names.split('+') {
            if !known.iter().any(|k| k == name) {
                return Err(format!("{entry:?}: language {name:?} is not among --languages"));
            }
            languages.push(name.to_owned());
        }
    }
    Ok(Entry { split: split.to_owned(), languages, count, first })
}
