//! JavaScript for Node: array methods as steps or as one chain, or loops.

use cognate_random::Stream;

use super::code::{Code, arithmetic, block, fill, line, pick};
use super::{Emitter, Head, Names, Style, finish};
use crate::ir::{Form, Kind, Op, Pipeline, Sink, Source};

pub struct JavaScript;

const READ: &str = "require(\"fs\").readFileSync(0, \"utf8\").trim()";

impl Emitter for JavaScript {
    fn language(&self) -> &'static str {
        "javascript"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Steps, 0.4), (Style::Chain, 0.35), (Style::Loop, 0.25)]
    }

    fn indent(&self) -> &'static str {
        "  "
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Lacks(_) => &["!{x}.includes(\"{c}\")"],
            Op::Shorter(_) => &["{x}.length < {k}"],
            Op::LengthIs(_) => &["{x}.length === {k}"],
            Op::StartsWith(_) => &["{x}.startsWith(\"{c}\")", "{x}[0] === \"{c}\""],
            Op::EndsWith(_) => &["{x}.endsWith(\"{c}\")"],
            Op::Palindrome => &["{x} === [...{x}].reverse().join(\"\")"],
            Op::Contains(_) => &["{x}.includes(\"{c}\")"],
            Op::Longer(_) => &["{x}.length > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[(" == ", " === "), (" != ", " !== "), ("{x}", x)])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Square => &["{x} * {x}", "{x} ** 2"],
            Op::Cube => &["{x} ** 3", "{x} * {x} * {x}"],
            Op::Halve => &["Math.floor({x} / 2)"],
            Op::Distance(_) => &["Math.abs({x} - {k})"],
            Op::DigitSum => &["[...String({x})].reduce((s, d) => s + Number(d), 0)"],
            Op::Capitalize => &["{x}[0].toUpperCase() + {x}.slice(1)"],
            Op::FirstLetter => &["{x}[0]"],
            Op::LastLetter => &["{x}.slice(-1)", "{x}[{x}.length - 1]"],
            Op::Twice => &["{x}.repeat(2)", "{x} + {x}"],
            Op::Replace(..) => &["{x}.replaceAll(\"{c}\", \"{d}\")"],
            Op::CountOf(_) => &["{x}.split(\"{c}\").length - 1"],
            Op::Upper => &["{x}.toUpperCase()"],
            Op::Backwards => &["{x}.split(\"\").reverse().join(\"\")", "[...{x}].reverse().join(\"\")"],
            Op::Length => &["{x}.length"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn open_if(&self, condition: &str) -> String {
        format!("if ({condition}) {{")
    }

    fn close(&self) -> &'static str {
        "}"
    }

    fn bind(&self, _: Kind, name: &str, value: &str) -> String {
        format!("const {name} = {value};")
    }

    fn bind_value(&self, name: &str, value: &str) -> String {
        format!("let {name} = {value};")
    }

    fn new_list(&self, _: Kind, name: &str) -> String {
        format!("let {name} = [];")
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("{list}.push({value});")
    }

    fn add_to(&self, name: &str, value: &str) -> String {
        format!("{name} += {value};")
    }

    fn read_list(&self, source: Source, names: &Names, _: &mut Stream) -> Vec<Code> {
        let mut code = Vec::new();
        if let Source::Range { .. } = source {
            code.push(line(format!("const {} = Number({READ});", names.bound)));
        }
        code.push(line(format!("let {} = {};", names.list, elements(source, names.bound))));
        code
    }

    fn read_loop(&self, source: Source, names: &Names, stream: &mut Stream) -> Head {
        let (x, n) = (names.element, names.bound);
        let Source::Range { first, beyond } = source else {
            return Head::new(
                self.read_list(source, names, stream),
                self.list_loop(source.kind(), names.list, x),
            );
        };
        let end = match beyond {
            0 => format!("{x} <= {n}"),
            -1 => format!("{x} < {n}"),
            d => format!("{x} <= {n} + {d}"),
        };
        Head::new(
            vec![line(format!("const {n} = Number({READ});"))],
            format!("for (let {x} = {first}; {end}; {x}++) {{"),
        )
    }

    fn list_loop(&self, _: Kind, list: &str, x: &str) -> String {
        format!("for (const {x} of {list}) {{")
    }

    fn list_op(&self, op: Op, kind: Kind, list: &str, _: &Names, stream: &mut Stream) -> Vec<Code> {
        let call = method(op, kind, stream);
        vec![line(match op {
            Op::Sort | Op::Reverse | Op::SortByLength => format!("{list}{call};"),
            Op::Dedup => format!("{list} = [...new Set({list})];"),
            Op::PrefixSums => format!("let sum = 0;\n{list} = {list}.map(x => (sum += x));"),
            Op::Differences => format!("{list} = {list}.slice(1).map((x, i) => x - {list}[i]);"),
            _ => format!("{list} = {list}{call};"),
        })]
    }

    fn element_ops(&self, ops: &[Op], _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        ops.iter()
            .map(|&op| line(format!("{list} = {list}{};", self.call(op, names.element, stream))))
            .collect()
    }

    fn chain(&self, pipeline: &Pipeline, names: &Names, stream: &mut Stream) -> Option<Vec<Code>> {
        if pipeline.ops.iter().any(|op| matches!(op, Op::PrefixSums | Op::Differences)) {
            return None;
        }
        let mut code = Vec::new();
        if let Source::Range { .. } = pipeline.source {
            code.push(line(format!("const {} = Number({READ});", names.bound)));
        }
        let mut value = elements(pipeline.source, names.bound);
        for (&op, kind) in pipeline.ops.iter().zip(pipeline.kinds()) {
            value = match op {
                Op::Dedup => format!("[...new Set({value})]"),
                _ if op.form() == Form::List => format!("{value}{}", method(op, kind, stream)),
                _ => format!("{value}{}", self.call(op, names.element, stream)),
            };
        }
        code.push(line(format!("const {} = {value};", names.list)));
        code.extend(finish(self, pipeline, names.list, names, stream));
        Some(code)
    }

    fn value(&self, sink: Sink, _: Kind, list: &str, _: &mut Stream) -> Option<String> {
        Some(match sink {
            Sink::Sum => format!("{list}.reduce((s, x) => s + x, 0)"),
            Sink::Count => format!("{list}.length"),
            Sink::Max => format!("Math.max(...{list})"),
            Sink::Min => format!("Math.min(...{list})"),
            Sink::Spread => format!("Math.max(...{list}) - Math.min(...{list})"),
            Sink::Distinct => format!("new Set({list}).size"),
            Sink::First => format!("{list}[0]"),
            Sink::Final => format!("{list}[{list}.length - 1]"),
            Sink::Joined(_) | Sink::Lines => return None,
        })
    }

    fn show(&self, sink: Sink, _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        match sink {
            Sink::Joined(c) => vec![line(format!("console.log({list}.join(\"{c}\"));"))],
            _ if stream.chance(0.5) => vec![line(format!("console.log({list}.join(\"\\n\"));"))],
            _ => vec![block(
                self.list_loop(Kind::Word, list, names.element),
                vec![line(format!("console.log({});", names.element))],
                "}",
            )],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("console.log({value});")
    }
}

impl JavaScript {
    /// `.filter(…)` or `.map(…)` of an element-wise operation.
    fn call(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        if op.form() == Form::Keep {
            format!(".filter({x} => {})", self.keep(op, x, stream))
        } else {
            format!(".map({x} => {})", self.map(op, x, stream))
        }
    }
}

fn elements(source: Source, n: &str) -> String {
    match source {
        Source::Column => format!("{READ}.split(\"\\n\").slice(1).map(Number)"),
        Source::WordLines => format!("{READ}.split(\"\\n\")"),
        Source::Ints | Source::Signed => format!("{READ}.split(\" \").map(Number)"),
        Source::Words => format!("{READ}.split(\" \")"),
        Source::Range { first, beyond } => {
            let length = match beyond + 1 - first {
                0 => n.to_owned(),
                d if d < 0 => format!("{n} - {}", -d),
                d => format!("{n} + {d}"),
            };
            let value = if first == 0 { "i".to_owned() } else { format!("i + {first}") };
            format!("Array.from({{ length: {length} }}, (_, i) => {value})")
        }
    }
}

/// The method call of a list operation other than `Dedup`.
fn method(op: Op, kind: Kind, stream: &mut Stream) -> String {
    let templates: &[&str] = match (op, kind) {
        (Op::Sort, Kind::Int) => &[".sort((p, q) => p - q)"],
        (Op::Sort, Kind::Word) => &[".sort()"],
        (Op::SortDescending, Kind::Int) => &[".sort((p, q) => q - p)"],
        (Op::SortDescending, Kind::Word) => &[".sort().reverse()"],
        (Op::SortByLength, _) => &[".sort((p, q) => p.length - q.length || (p < q ? -1 : 1))"],
        (Op::Drop(_), _) => &[".slice({k})"],
        (Op::Last(_), _) => &[".slice(-{k})"],
        (Op::EveryOther, _) => &[".filter((_, i) => i % 2 === 0)"],
        (Op::Reverse, _) => &[".reverse()"],
        (Op::Take(_), _) => &[".slice(0, {k})"],
        _ => return String::new(),
    };
    pick(stream, templates, op)
}
