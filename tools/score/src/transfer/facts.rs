//! What each arm was trained on, from the manifest that the mixture was written with.

use std::path::Path;

use anyhow::Context;
use cognate_cli::rejected;
use serde_json::Value;

/// One arm of the manifest; what it does not say is absent.
#[derive(Debug, Default)]
pub struct Facts {
    pub arm: String,
    pub languages: Vec<String>,
    pub replay_languages: Vec<String>,
    pub problems: Option<u64>,
    pub documents: Option<u64>,
    pub tokens: Option<u64>,
    /// Tokens with loss, by task, in the order of the manifest.
    pub answer_tokens: Vec<(String, u64)>,
    pub steps: Option<u64>,
}

impl Facts {
    /// Whether a program of one of these languages was trained on.
    pub fn saw(&self, languages: &[String]) -> bool {
        self.languages.iter().chain(&self.replay_languages).any(|l| languages.contains(l))
    }
}

/// # Errors
/// When the file cannot be read or lists no arms.
pub fn read(path: &Path) -> anyhow::Result<Vec<Facts>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse(&text).map_err(|reason| rejected(anyhow::anyhow!("{}: {reason}", path.display())))
}

fn parse(text: &str) -> Result<Vec<Facts>, String> {
    let manifest: Value = serde_json::from_str(text).map_err(|e| format!("not valid JSON: {e}"))?;
    let arms = manifest
        .get("arms")
        .and_then(Value::as_array)
        .ok_or("no list of arms; is it a mixture's manifest?")?;
    arms.iter()
        .map(|arm| {
            let number = |key: &str| arm.get(key).and_then(Value::as_u64);
            let names = |key: &str| {
                let list = arm.get(key).and_then(Value::as_array).into_iter().flatten();
                list.filter_map(|v| v.as_str().map(ToString::to_string)).collect()
            };
            let answers = arm.get("answer_tokens").and_then(Value::as_object).into_iter().flatten();
            Ok(Facts {
                arm: arm.get("name").and_then(Value::as_str).ok_or("an arm has no name")?.to_string(),
                languages: names("languages"),
                replay_languages: names("replay_languages"),
                problems: number("problems"),
                documents: number("documents"),
                tokens: number("tokens"),
                answer_tokens: answers.filter_map(|(k, v)| Some((k.clone(), v.as_u64()?))).collect(),
                steps: number("steps"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_read_and_other_files_refused() {
        let text = r#"{"arms":[{"name":"parallel","languages":["python"],"replay_languages":["ruby"],
            "problems":7,"answer_tokens":{"generation":90,"replay":10}}]}"#;
        let facts = &parse(text).unwrap()[0];
        assert_eq!((facts.problems, facts.tokens), (Some(7), None));
        assert_eq!(facts.answer_tokens[0], ("generation".into(), 90));
        assert!(facts.saw(&["ruby".into()]) && !facts.saw(&["php".into()]));
        assert!(parse("{}").is_err() && parse("[").is_err() && parse(r#"{"arms":[{}]}"#).is_err());
    }
}
