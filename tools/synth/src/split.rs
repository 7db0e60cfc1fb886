//! Splits: disjoint parts of the world, chosen by a hash of what a problem does.

use std::str::FromStr;

use cognate_random::Key;

/// Names with their shares, which sum to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares(Vec<(String, f64)>);

impl Shares {
    /// The split of a problem with this behaviour.
    pub fn of(&self, behaviour: u64) -> &str {
        let mut x = Key::new(0).with("split").with(behaviour).stream().uniform();
        for (name, share) in &self.0 {
            if x < *share {
                return name;
            }
            x -= share;
        }
        &self.0[self.0.len() - 1].0
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// From `NAME=WEIGHT` entries; weights need not sum to anything in particular.
    ///
    /// # Errors
    /// When an entry is not of this form, a weight is not positive, or a name stands twice.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        let mut shares: Vec<(String, f64)> = Vec::new();
        for entry in entries {
            let (name, weight) = entry
                .split_once('=')
                .ok_or_else(|| format!("share {entry:?} is not of the form NAME=WEIGHT"))?;
            let weight = f64::from_str(weight).ok().filter(|w| w.is_finite() && *w > 0.0);
            let weight = weight.ok_or_else(|| format!("share {entry:?} needs a positive weight"))?;
            if name.is_empty() || shares.iter().any(|(n, _)| n == name) {
                return Err(format!("split {name:?} is empty or stands twice"));
            }
            shares.push((name.to_owned(), weight));
        }
        let total: f64 = shares.iter().map(|s| s.1).sum();
        if shares.is_empty() {
            return Err("no split is given".into());
        }
        for share in &mut shares {
            share.1 /= total;
        }
        Ok(Self(shares))
    }
}
