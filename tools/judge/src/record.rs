//! One line of the stream: what has to be judged, and the same line with its verdict.
//!
//! A line is not decoded and encoded again: the verdict is added to its text, so that every byte of every other field
//! stays as it came.

use cognate_records::{Line, Result, Verdict};
use serde::Deserialize;
use serde_json::Value;

/// What a line asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A record of another kind; it passes.
    Pass,
    Program {
        problem: String,
        language: String,
        source: String,
    },
    /// An answer of a model, in which the program has to be found.
    Answer {
        problem: String,
        language: String,
        text: String,
    },
    Verification {
        text: String,
        label: bool,
    },
}

#[derive(Deserialize)]
struct Fields {
    source: Option<String>,
    text: Option<String>,
    language: Option<String>,
    problem: Option<String>,
    task: Option<String>,
    label: Option<Value>,
}

/// What a line asks for. `program/1`, `rollout/1`, and lines without schema that have the fields, are judged; other
/// schemas pass through.
///
/// # Errors
/// With `file:line`, when a field is missing or of the wrong type, or the major version is another.
pub fn work(line: &Line) -> Result<Work> {
    let kind = line.schema().map(|s| s.split_once('/').unwrap_or((s, "")));
    let is_rollout = match kind {
        Some(("program", "1")) => false,
        Some(("rollout", "1")) => true,
        Some((name @ ("program" | "rollout"), _)) => {
            let found = line.schema().unwrap_or_default();
            return Err(
                line.error(format!("schema {found:?} is not supported; this build reads \"{name}/1\""))
            );
        }
        Some(_) => return Ok(Work::Pass),
        None => false,
    };
    let fields: Fields = serde_json::from_str(line.text()).map_err(|e| {
        let text = e.to_string();
        line.error(text.rfind(" at line ").map_or(text.clone(), |at| text[..at].to_owned()))
    })?;
    let need = |field: Option<String>, name: &str| match field {
        Some(value) if !value.is_empty() => Ok(value),
        Some(_) => Err(line.error(format!("field {name} is empty"))),
        None => Err(line.error(format!("field {name} is missing"))),
    };
    let is_rollout = is_rollout || (kind.is_none() && fields.source.is_none() && fields.text.is_some());
    if is_rollout && fields.task.as_deref() == Some("verification") {
        let label = crate::verification::label(fields.label.as_ref()).map_err(|reason| line.error(reason))?;
        let text = fields.text.ok_or_else(|| line.error("field text is missing"))?;
        return Ok(Work::Verification { text, label });
    }
    let (problem, language) = (need(fields.problem, "problem")?, need(fields.language, "language")?);
    if is_rollout {
        let text = fields.text.ok_or_else(|| line.error("field text is missing"))?;
        Ok(Work::Answer { problem, language, text })
    } else {
        let source = fields.source.ok_or_else(|| line.error("field source is missing"))?;
        Ok(Work::Program { problem, language, source })
    }
}

/// The line with `verdict` as its last field, in place of an earlier one.
pub fn with_verdict(text: &str, verdict: &Verdict) -> String {
    let verdict = serde_json::to_value(verdict).expect("a verdict holds only JSON types");
    let body = text.trim_end();
    if body.contains("\"verdict\"")
        && let Ok(Value::Object(mut fields)) = serde_json::from_str(body)
        && fields.shift_remove("verdict").is_some()
    {
        fields.insert("verdict".into(), verdict);
        return Value::Object(fields).to_string();
    }
    let inside = body.strip_suffix('}').unwrap_or(body).trim_end();
    let comma = if inside.ends_with('{') { "" } else { "," };
    format!("{inside}{comma}\"verdict\":{verdict}}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cognate_records::{Lines, Status};

    fn line(text: &str) -> Line {
        Lines::new("x.jsonl", std::io::Cursor::new(text.to_owned())).next().unwrap().unwrap()
    }

    #[test]
    fn lines_are_told_apart() {
        let of = |text: &str| work(&line(text));
        assert!(matches!(
            of(r#"{"schema":"program/1","id":"a","problem":"p","language":"c","source":""}"#),
            Ok(Work::Program { .. })
        ));
        assert!(matches!(of(r#"{"problem":"p","language":"c","text":"x"}"#), Ok(Work::Answer { .. })));
        assert_eq!(of(r#"{"schema":"step_end/1","step":1}"#).unwrap(), Work::Pass);
        assert_eq!(
            of(r#"{"schema":"rollout/1","task":"verification","text":"yes","label":"no"}"#).unwrap(),
            Work::Verification { text: "yes".into(), label: false }
        );
        for (text, reason) in [
            (r#"{"schema":"program/2"}"#, "x.jsonl:1: schema \"program/2\" is not supported"),
            (r#"{"schema":"rollout/1","text":"x","language":"c"}"#, "x.jsonl:1: field problem is missing"),
            (r#"{"schema":"program/1","problem":"p","language":"c"}"#, "x.jsonl:1: field source is missing"),
            (r#"{"schema":"program/1","problem":7,"language":"c"}"#, "x.jsonl:1: invalid type"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn the_rest_of_the_line_keeps_its_bytes() {
        let verdict = Verdict {
            status: Status::AC,
            reward: Some(1.0),
            score: None,
            failure: None,
            passed: 1,
            run: 1,
            total: 1,
            tests: Vec::new(),
            extraction: None,
            message: None,
            detected_language: None,
            measured: None,
        };
        let tail = r#""verdict":{"status":"AC","reward":1.0,"passed":1,"run":1,"total":1}}"#;
        let text = r#"{ "a" : 1.50,  "logprobs":[-0.10] } "#;
        assert_eq!(with_verdict(text, &verdict), format!("{{ \"a\" : 1.50,  \"logprobs\":[-0.10],{tail}"));
        assert_eq!(with_verdict("{}", &verdict), format!("{{{tail}"));
        assert_eq!(with_verdict(r#"{"verdict":{"old":1},"b":2}"#, &verdict), format!("{{\"b\":2,{tail}"));
    }
}
