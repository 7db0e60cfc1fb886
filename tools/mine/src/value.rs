//! Where a field's text comes from inside a row of somebody else's corpus: a path, a fixed value, a template or the
//! first of several. The little language of the map files, evaluated over `serde_json` values.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The source of one field.
///
/// A path is `a.b.0` (keys and list indices, from the element), `/a.b` (from the row), `@key` (the key or index under
/// which `each` found the element) or `@row` (the number of the row, from 1).
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum Field {
    Path(String),
    /// The same text for every record.
    Value(FixedValue),
    /// Text with `{path}` in it; `{{` and `}}` stand for braces.
    Template(Template),
    /// The first of these that is there and not empty.
    First(First),
}

#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FixedValue {
    pub value: String,
}

#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Template {
    pub template: String,
}

#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct First {
    pub first: Vec<Field>,
}

impl From<&str> for Field {
    fn from(path: &str) -> Self {
        Self::Path(path.to_owned())
    }
}

/// What the paths of one element are resolved against.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    pub row: &'a Value,
    pub element: std::borrow::Cow<'a, Value>,
    pub key: Option<String>,
    pub number: u64,
}

impl<'a> Scope<'a> {
    pub fn of_row(row: &'a Value, number: u64) -> Self {
        Self { row, element: std::borrow::Cow::Borrowed(row), key: None, number }
    }

    fn find(&self, path: &str) -> Option<&Value> {
        let (start, path) = match path.strip_prefix('/') {
            Some(rest) => (self.row, rest),
            None => (self.element.as_ref(), path),
        };
        descend(start, path)
    }

    /// The text of `field`, `None` when it is absent or null.
    ///
    /// # Errors
    /// When the path leads to a list or an object, or a template names something absent.
    pub fn text(&self, field: &Field) -> Result<Option<String>, String> {
        match field {
            Field::Path(path) => self.path_text(path),
            Field::Value(fixed) => Ok(Some(fixed.value.clone())),
            Field::Template(t) => self.render(&t.template).map(Some),
            Field::First(f) => {
                for field in &f.first {
                    if let Some(text) = self.text(field)?.filter(|t| !t.is_empty()) {
                        return Ok(Some(text));
                    }
                }
                Ok(None)
            }
        }
    }

    /// As [`Scope::text`] for a field that the map may leave out.
    pub fn optional(&self, field: Option<&Field>) -> Result<Option<String>, String> {
        field.map_or(Ok(None), |f| self.text(f))
    }

    /// As [`Scope::text`], but absence is an error.
    pub fn required(&self, field: &Field) -> Result<String, String> {
        self.text(field)?.ok_or_else(|| format!("{} is missing", describe(field)))
    }

    /// A number, or text that is one.
    pub fn number(&self, field: Option<&Field>) -> Result<Option<f64>, String> {
        let Some(text) = self.optional(field)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| format!("{text:?} is not a number"))
    }

    fn path_text(&self, path: &str) -> Result<Option<String>, String> {
        match path {
            "@key" => Ok(self.key.clone()),
            "@row" => Ok(Some(self.number.to_string())),
            _ => self.find(path).map_or(Ok(None), |v| scalar(v).map_err(|e| format!("{path}: {e}"))),
        }
    }

    fn render(&self, template: &str) -> Result<String, String> {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let after = &rest[at + 1..];
            if after.starts_with(brace) {
                out.push_str(brace);
                rest = &after[1..];
            } else if brace == "{" {
                let end =
                    after.find('}').ok_or_else(|| format!("template {template:?}: {{ is not closed"))?;
                let path = after[..end].trim();
                let text = self.path_text(path)?;
                out.push_str(&text.ok_or_else(|| format!("{path} is missing"))?);
                rest = &after[end + 1..];
            } else {
                return Err(format!("template {template:?}: }} without {{"));
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The elements at `path`: of a list (key = index) or of an object (key = name).
    pub fn each(&self, path: &str) -> Result<Vec<Scope<'a>>, String> {
        let found = match self.resolve(path) {
            Some(v) if !v.is_null() => v,
            _ => return Ok(Vec::new()),
        };
        let scope = |key: String, v: std::borrow::Cow<'a, Value>| Scope {
            row: self.row,
            element: v,
            key: Some(key),
            number: self.number,
        };
        use std::borrow::Cow::{Borrowed, Owned};
        Ok(match found {
            Borrowed(Value::Array(items)) => {
                items.iter().enumerate().map(|(i, v)| scope(i.to_string(), Borrowed(v))).collect()
            }
            Borrowed(Value::Object(map)) => map.iter().map(|(k, v)| scope(k.clone(), Borrowed(v))).collect(),
            Owned(Value::Array(items)) => {
                items.into_iter().enumerate().map(|(i, v)| scope(i.to_string(), Owned(v))).collect()
            }
            Owned(Value::Object(map)) => map.into_iter().map(|(k, v)| scope(k, Owned(v))).collect(),
            _ => return Err(format!("{path} is neither a list nor an object")),
        })
    }

    /// The elements of parallel lists: the object `{a: [1, 2], b: [3, 4]}` at `path` as `{a: 1, b: 3}`, `{a: 2, b: 4}`.
    pub fn zip(&self, path: &str) -> Result<Vec<Scope<'a>>, String> {
        let columns = match self.resolve(path).as_deref() {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Object(map)) => map.clone(),
            Some(_) => return Err(format!("{path} is not an object of parallel lists")),
        };
        let mut length = None;
        for (name, column) in &columns {
            let n = column.as_array().ok_or_else(|| format!("{path}.{name} is not a list"))?.len();
            if *length.get_or_insert(n) != n {
                return Err(format!("the lists in {path} differ in length"));
            }
        }
        let element = |i: usize| {
            let fields: Map<_, _> = columns.iter().map(|(k, v)| (k.clone(), v[i].clone())).collect();
            Scope {
                row: self.row,
                element: std::borrow::Cow::Owned(Value::Object(fields)),
                key: Some(i.to_string()),
                number: self.number,
            }
        };
        Ok((0..length.unwrap_or(0)).map(element).collect())
    }

    fn resolve(&self, path: &str) -> Option<std::borrow::Cow<'a, Value>> {
        use std::borrow::Cow;
        if let Some(rest) = path.strip_prefix('/') {
            return descend(self.row, rest).map(Cow::Borrowed);
        }
        match &self.element {
            Cow::Borrowed(v) => descend(v, path).map(Cow::Borrowed),
            Cow::Owned(v) => descend(v, path).map(|v| Cow::Owned(v.clone())),
        }
    }

    /// The named values as they are, for `keep`.
    pub fn keep(&self, names: &[String]) -> BTreeMap<String, Value> {
        let value = |path: &String| {
            let found = self.find(path).filter(|v| !v.is_null())?;
            Some((path.rsplit(['.', '/']).next().unwrap_or(path).to_owned(), found.clone()))
        };
        names.iter().filter_map(value).collect()
    }
}

fn descend<'v>(start: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() || path == "." {
        return Some(start);
    }
    // A key that itself contains a dot wins over two steps.
    if let Some(found) = start.get(path) {
        return Some(found);
    }
    path.split('.').try_fold(start, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

/// Text of a string, number or truth value; a list with exactly one of those counts as it.
fn scalar(value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(s) => Ok(Some(s.clone())),
        Value::Number(n) => Ok(Some(n.to_string())),
        Value::Bool(b) => Ok(Some(b.to_string())),
        Value::Array(items) if items.len() == 1 => scalar(&items[0]),
        Value::Array(items) => Err(format!("a list of {} values where text was expected", items.len())),
        Value::Object(_) => Err("an object where text was expected".to_owned()),
    }
}

/// A field as a person would name it, for messages.
pub fn describe(field: &Field) -> String {
    match field {
        Field::Path(path) => path.clone(),
        Field::Value(v) => format!("{:?}", v.value),
        Field::Template(t) => format!("template {:?}", t.template),
        Field::First(f) => f.first.iter().map(describe).collect::<Vec<_>>().join(" or "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(row: &Value, field: Field) -> Result<Option<String>, String> {
        Scope::of_row(row, 3).text(&field)
    }

    #[test]
    fn fields_come_from_paths_values_templates_and_the_first_that_is_there() {
        let row =
            json!({"a": {"b": ["x", 7]}, "c.d": "dotted", "e": null, "one": ["only"], "many": ["a", "b"]});
        assert_eq!(text(&row, "a.b.0".into()), Ok(Some("x".into())));
        assert_eq!(text(&row, "a.b.1".into()), Ok(Some("7".into())));
        assert_eq!(text(&row, "c.d".into()), Ok(Some("dotted".into())));
        assert_eq!(text(&row, "e".into()), Ok(None));
        assert_eq!(text(&row, "a.b.9".into()), Ok(None));
        assert_eq!(text(&row, "@row".into()), Ok(Some("3".into())));
        assert_eq!(text(&row, "one".into()), Ok(Some("only".into())));
        assert!(text(&row, "many".into()).is_err());
        let template = |t: &str| Field::Template(Template { template: t.into() });
        assert_eq!(text(&row, template("{{{a.b.0}}}-{a.b.1}")), Ok(Some("{x}-7".into())));
        assert!(text(&row, template("{nothing}")).is_err());
        assert!(text(&row, template("{a")).is_err());
        let first = Field::First(First { first: vec!["e".into(), "a.b.1".into()] });
        assert_eq!(text(&row, first), Ok(Some("7".into())));
    }

    #[test]
    fn elements_come_from_lists_objects_and_parallel_lists() {
        let row = json!({"id": "p", "l": [{"x": 1}, {"x": 2}], "m": {"py": {"x": 3}}, "z": {"in": ["a", "b"], "out": ["c", "d"]},
                         "bad": {"in": ["a"], "out": []}});
        let scope = Scope::of_row(&row, 1);
        let all = |scopes: Vec<Scope>, path: &str| -> Vec<_> {
            scopes.iter().map(|s| (s.key.clone().unwrap(), s.text(&path.into()).unwrap().unwrap())).collect()
        };
        assert_eq!(all(scope.each("l").unwrap(), "x"), [("0".into(), "1".into()), ("1".into(), "2".into())]);
        assert_eq!(all(scope.each("m").unwrap(), "/id"), [("py".into(), "p".into())]);
        assert_eq!(all(scope.zip("z").unwrap(), "out"), [("0".into(), "c".into()), ("1".into(), "d".into())]);
        assert!(scope.zip("bad").is_err());
        assert!(scope.each("id").is_err());
        assert!(scope.each("absent").unwrap().is_empty());
    }
}
