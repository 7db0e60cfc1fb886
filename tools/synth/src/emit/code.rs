//! A program text as a tree of lines and blocks, and the small templates that expressions are made of.

use cognate_random::Stream;

use crate::ir::Op;

#[derive(Debug, Clone)]
pub enum Code {
    Line(String),
    /// Opening line, body, closing line (empty where indentation closes).
    Block(String, Vec<Code>, &'static str),
}

pub fn line(text: impl Into<String>) -> Code {
    Code::Line(text.into())
}

pub fn block(open: impl Into<String>, body: Vec<Code>, close: &'static str) -> Code {
    Code::Block(open.into(), body, close)
}

/// The text, every line ended by a newline; a `Line` may itself hold several lines.
pub fn render(code: &[Code], indent: &str) -> String {
    let mut text = String::new();
    write(code, 0, &mut |depth, lines: &str| {
        for one in lines.lines() {
            if !one.is_empty() {
                text.push_str(&indent.repeat(depth));
                text.push_str(one);
            }
            text.push('\n');
        }
    });
    text
}

fn write(code: &[Code], depth: usize, put: &mut impl FnMut(usize, &str)) {
    for item in code {
        match item {
            Code::Line(one) => put(depth, one),
            Code::Block(open, body, close) => {
                put(depth, open);
                write(body, depth + 1, put);
                put(depth, close);
            }
        }
    }
}

/// A template with its places filled: `{x}` the element, `{a}` the list, `{k}`, `{j}`, `{c}`, `{d}` the operation's
/// constants.
pub fn fill(template: &str, places: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (place, value) in places {
        text = text.replace(place, value);
    }
    text
}

/// One of the templates; an operation that has none here is a mistake of the emitter, and gives the empty text.
pub fn choose(stream: &mut Stream, templates: &[&'static str]) -> &'static str {
    if templates.is_empty() { "" } else { templates[stream.below(templates.len() as u64) as usize] }
}

/// One of the templates, its constants filled.
pub fn pick(stream: &mut Stream, templates: &[&'static str], op: Op) -> String {
    let constants = op.constants();
    let places: Vec<(&str, &str)> = constants.iter().map(|(place, value)| (*place, value.as_str())).collect();
    fill(choose(stream, templates), &places)
}

/// Conditions and expressions that are written alike in every language of the C family's arithmetic.
pub fn arithmetic(op: Op) -> &'static [&'static str] {
    use Op::*;
    match op {
        Even => &["{x} % 2 == 0"],
        Odd => &["{x} % 2 != 0"],
        Above(_) => &["{x} > {k}"],
        Below(_) => &["{x} < {k}"],
        AtLeast(_) => &["{x} >= {k}"],
        AtMost(_) => &["{x} <= {k}"],
        MultipleOf(_) => &["{x} % {k} == 0"],
        NotMultipleOf(_) => &["{x} % {k} != 0"],
        Between(..) => &["{x} >= {k} && {x} <= {j}"],
        LastDigit(_) => &["{x} % 10 == {k}"],
        Not(_) => &["{x} != {k}"],
        Add(_) => &["{x} + {k}"],
        Subtract(_) => &["{x} - {k}"],
        Cube => &["{x} * {x} * {x}"],
        Modulo(_) => &["{x} % {k}"],
        Times(_) => &["{x} * {k}"],
        Square => &["{x} * {x}"],
        _ => &[],
    }
}
