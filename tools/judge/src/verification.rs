//! Grades an answer to "is this program correct?" against the prompt's label: no code runs.
//!
//! The answer is the last word of the text that is `yes` or `no` (`correct` and `incorrect` are not read: they appear in
//! explanations). No such word is no answer, which is wrong whatever the label.

use serde_json::Value;

/// What the label says: a truth value, or one of `yes`, `no`, `accepted`, `wrong`, `correct`, `incorrect`.
///
/// # Errors
/// A reason without place.
pub fn label(value: Option<&Value>) -> Result<bool, String> {
    match value {
        None => Err("a verification rollout needs the field label".into()),
        Some(Value::Bool(b)) => Ok(*b),
        Some(Value::String(s)) => match s.to_ascii_lowercase().as_str() {
            "yes" | "accepted" | "correct" | "true" => Ok(true),
            "no" | "wrong" | "incorrect" | "false" => Ok(false),
            _ => Err(format!("label {s:?} is neither yes nor no")),
        },
        Some(other) => Err(format!("label {other} is neither yes nor no")),
    }
}

pub fn answer(text: &str) -> Option<bool> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter_map(|word| match word.to_ascii_lowercase().as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_yes_or_no_is_the_answer() {
        assert_eq!(answer("Yes"), Some(true));
        assert_eq!(answer("No test fails, so: yes."), Some(true));
        assert_eq!(answer("yes, but no"), Some(false));
        assert_eq!(answer("I know nothing"), None);
        assert_eq!(label(Some(&Value::from("accepted"))), Ok(true));
        assert_eq!(label(Some(&Value::from(false))), Ok(false));
        assert!(label(Some(&Value::from("maybe"))).is_err() && label(None).is_err());
    }
}
