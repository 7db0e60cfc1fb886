//! Labels of a model: `arm=parallel,stage=rl,seed=0`, as they stand in a rollout's or metric's `model`.

use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// Text without `=` becomes the label `model`.
///
/// # Errors
/// A reason without place: an empty key or value, or a key given twice.
pub fn parse(text: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or(("model", part));
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(format!("label {part:?} of model {text:?} is not key=value"));
        }
        if labels.insert(key.into(), value.into()).is_some() {
            return Err(format!("model {text:?} gives label {key:?} twice"));
        }
    }
    Ok(labels)
}

/// Label keys in reading order: what the pipeline names first, the rest by name.
pub fn ordered<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const FIRST: [&str; 4] = ["model", "arm", "stage", "seed"];
    let mut keys: Vec<&str> = keys.into_iter().collect();
    keys.sort_by_key(|key| (FIRST.iter().position(|f| f == key).unwrap_or(FIRST.len()), *key));
    keys.dedup();
    keys
}

/// Compares label values as people do: numbers by value, before text.
pub fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.total_cmp(&y).then_with(|| a.cmp(b)),
        (Ok(_), Err(_)) => std::cmp::Ordering::Less,
        (Err(_), Ok(_)) => std::cmp::Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_and_damaged_ones_refused() {
        let labels = parse("arm=parallel, stage=rl,seed=0").unwrap();
        assert_eq!(labels["arm"], "parallel");
        assert_eq!(labels["stage"], "rl");
        assert_eq!(parse("llama/base").unwrap()["model"], "llama/base");
        assert!(parse("").unwrap().is_empty());
        assert!(parse("arm=").unwrap_err().contains("key=value"));
        assert!(parse("arm=a,arm=b").unwrap_err().contains("twice"));
    }

    #[test]
    fn orders_are_those_of_a_reader() {
        assert_eq!(ordered(["zeta", "seed", "alpha", "arm"]), ["arm", "seed", "alpha", "zeta"]);
        let mut seeds = ["10", "9", "x", "0"];
        seeds.sort_by(|a, b| natural(a, b));
        assert_eq!(seeds, ["0", "9", "10", "x"]);
    }
}
