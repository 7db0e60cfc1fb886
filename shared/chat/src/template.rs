//! Renders chat templates as `transformers.apply_chat_template` does.
//!
//! Jinja with `trim_blocks` and `lstrip_blocks`, Python's string and list methods, loop controls, `raise_exception`,
//! `tojson` as Python's `json.dumps(ensure_ascii=False)` and a `strftime_now` that knows no clock: a result must not
//! depend on the day, so it gives a fixed date ([`DATE`]). A template that wants another takes `date_string` or
//! whatever variable it reads, through [`Template::variables`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use cognate_records::Message;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use crate::guard::is_private;

/// Year, month, day that `strftime_now` gives: Llama 3.1's own fallback, a Friday.
pub const DATE: (u32, u32, u32) = (2024, 7, 26);

#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    /// Where the source stands, for messages.
    pub place: String,
    /// Private-use characters in the source, none in practice.
    pub private: BTreeSet<u32>,
    /// Handed to the template beside the messages.
    pub variables: BTreeMap<String, Value>,
}

impl Template {
    pub fn new(source: &str, place: String) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| e.to_string())?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, DATE));
        environment.add_filter("tojson", to_json);
        environment.add_template_owned("chat", without_generation_tags(source)).map_err(|e| explain(&e))?;
        let private = source.chars().filter(|&c| is_private(c)).map(u32::from).collect();
        Ok(Self { environment, place, private, variables: BTreeMap::new() })
    }

    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
            .collect();
        let mut names: BTreeMap<String, Value> = self.variables.clone();
        names.insert("messages".into(), messages.into());
        names.insert("add_generation_prompt".into(), add_generation_prompt.into());
        for absent in ["tools", "documents"] {
            names.entry(absent.into()).or_insert(Value::from(()));
        }
        let template = self.environment.get_template("chat").map_err(|e| explain(&e))?;
        template.render(Value::from_pairs(names)).map_err(|e| explain(&e))
    }
}

/// The error with its line and its causes, in one line.
fn explain(error: &Error) -> String {
    let mut text = String::new();
    if let Some(line) = error.line() {
        let _ = write!(text, "line {line}: ");
    }
    let _ = write!(text, "{}", error.detail().map_or_else(|| error.kind().to_string(), str::to_owned));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

/// `{% generation %}…{% endgeneration %}` marks answers for transformers and prints nothing of its own.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(open) = rest.find("{%") {
        let Some(length) = rest[open..].find("%}") else { break };
        let tag = &rest[open..open + length + 2];
        let inner = &tag[2..tag.len() - 2];
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        out.push_str(&rest[..open]);
        match word {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[open + length + 2..];
    }
    out + rest
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=…)`: `", "` and `": "` without an indent.
fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let value = serde_json::to_value(&value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, "value has no JSON form").with_source(e))?;
    let mut out = String::new();
    dump(&value, indent, 0, &mut out);
    Ok(Value::from_safe_string(out))
}

fn dump(value: &serde_json::Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let newline = |depth: usize, out: &mut String| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    let separator = if indent.is_some() { "," } else { ", " };
    match value {
        serde_json::Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { separator } else { "" });
                newline(depth + 1, out);
                dump(item, indent, depth + 1, out);
            }
            newline(depth, out);
            out.push(']');
        }
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            out.push('{');
            for (i, (name, item)) in fields.iter().enumerate() {
                out.push_str(if i > 0 { separator } else { "" });
                newline(depth + 1, out);
                let _ = write!(out, "{}: ", serde_json::Value::from(name.as_str()));
                dump(item, indent, depth + 1, out);
            }
            newline(depth, out);
            out.push('}');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// The directives that chat templates use; any other is left as it stands.
fn strftime(format: &str, (year, month, day): (u32, u32, u32)) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let month_name = MONTHS[(month as usize - 1) % 12];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let _ = match chars.next() {
            Some('d') => write!(out, "{day:02}"),
            Some('b') => write!(out, "{}", &month_name[..3]),
            Some('B') => write!(out, "{month_name}"),
            Some('m') => write!(out, "{month:02}"),
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('A') => write!(out, "Friday"),
            Some('a') => write!(out, "Fri"),
            Some('H' | 'M' | 'S') => write!(out, "00"),
            Some('%') => write!(out, "%"),
            Some(other) => write!(out, "%{other}"),
            None => write!(out, "%"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> String {
        let messages: Vec<Message> =
            messages.iter().map(|(r, c)| Message { role: (*r).into(), content: (*c).into() }).collect();
        Template::new(source, "test".into()).unwrap().render(&messages, true).unwrap()
    }

    #[test]
    fn blocks_are_trimmed_and_stripped_as_transformers_does() {
        let source = "{% for m in messages %}\n    {% if m.role == 'user' %}\nU:{{ m['content'].strip() }}\n    {% endif %}\n{% endfor %}\n";
        assert_eq!(render(source, &[("user", " a "), ("user", "b")]), "U:a\nU:b\n");
    }

    #[test]
    fn json_is_written_as_python_does() {
        let source = "{{ messages[0] | tojson }}|{{ [] | tojson }}|{{ {'a': [1, 2.5, none, true]} | tojson(indent=2) }}";
        assert_eq!(
            render(source, &[("user", "<é'\"\n>")]),
            "{\"role\": \"user\", \"content\": \"<é'\\\"\\n>\"}|[]|{\n  \"a\": [\n    1,\n    2.5,\n    null,\n    true\n  ]\n}"
        );
    }

    #[test]
    fn the_date_is_fixed_and_generation_tags_print_nothing() {
        assert_eq!(render("{{ strftime_now('%d %b %Y, %B %H:%M %%') }}", &[]), "26 Jul 2024, July 00:00 %");
        assert_eq!(render("a {%- generation -%} b {% endgeneration %}c", &[]), "ab c");
    }

    #[test]
    fn a_template_can_refuse_and_the_reason_arrives() {
        let template = Template::new("{{ raise_exception('roles must alternate') }}", "t".into()).unwrap();
        let error = template.render(&[], false).unwrap_err();
        assert!(error.contains("roles must alternate") && error.contains("line 1"), "{error}");
        assert!(Template::new("{% if %}", "t".into()).is_err());
    }
}
