//! PHP: array functions step by step, or `foreach` loops.

use cognate_random::Stream;

use super::code::{Code, arithmetic, block, fill, line, pick};
use super::{Emitter, Head, Names, Style};
use crate::ir::{Form, Kind, Op, Sink, Source};

pub struct Php;

impl Emitter for Php {
    fn language(&self) -> &'static str {
        "php"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Steps, 0.65), (Style::Loop, 0.35)]
    }

    fn indent(&self) -> &'static str {
        "    "
    }

    fn var(&self, name: &str) -> String {
        format!("${name}")
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Lacks(_) => &["!str_contains({x}, \"{c}\")"],
            Op::Shorter(_) => &["strlen({x}) < {k}"],
            Op::LengthIs(_) => &["strlen({x}) == {k}"],
            Op::StartsWith(_) => &["str_starts_with({x}, \"{c}\")", "{x}[0] == \"{c}\""],
            Op::EndsWith(_) => &["str_ends_with({x}, \"{c}\")"],
            Op::Palindrome => &["{x} === strrev({x})"],
            Op::Contains(_) => &["str_contains({x}, \"{c}\")"],
            Op::Longer(_) => &["strlen({x}) > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Square => &["{x} * {x}", "{x} ** 2"],
            Op::Cube => &["{x} ** 3", "{x} * {x} * {x}"],
            Op::Halve => &["intdiv({x}, 2)"],
            Op::Distance(_) => &["abs({x} - {k})"],
            Op::DigitSum => &["array_sum(str_split({x}))"],
            Op::Capitalize => &["ucfirst({x})"],
            Op::FirstLetter => &["{x}[0]"],
            Op::LastLetter => &["substr({x}, -1)"],
            Op::Twice => &["str_repeat({x}, 2)", "{x} . {x}"],
            Op::Replace(..) => &["str_replace(\"{c}\", \"{d}\", {x})"],
            Op::CountOf(_) => &["substr_count({x}, \"{c}\")"],
            Op::Upper => &["strtoupper({x})"],
            Op::Backwards => &["strrev({x})"],
            Op::Length => &["strlen({x})"],
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
        format!("${name} = {value};")
    }

    fn new_list(&self, _: Kind, name: &str) -> String {
        format!("${name} = [];")
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("${list}[] = {value};")
    }

    fn add_to(&self, name: &str, value: &str) -> String {
        if value == "1" { format!("${name}++;") } else { format!("${name} += {value};") }
    }

    fn read_list(&self, source: Source, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let (a, n) = (names.list, names.bound);
        match source {
            Source::Column => {
                let Head { before: mut code, open, .. } = self.read_loop(source, names, stream);
                code.push(line(self.new_list(Kind::Int, a)));
                code.push(block(open, vec![line(self.push(a, "intval(fgets(STDIN))"))], "}"));
                code
            }
            Source::WordLines => vec![line(format!("${a} = file('php://stdin', FILE_IGNORE_NEW_LINES);"))],
            Source::Ints | Source::Signed => {
                vec![line(format!("${a} = array_map('intval', explode(' ', fgets(STDIN)));"))]
            }
            Source::Words => vec![line(format!("${a} = explode(' ', trim(fgets(STDIN)));"))],
            Source::Range { first, beyond } => {
                let end = match beyond {
                    0 => format!("${n}"),
                    d if d < 0 => format!("${n} - {}", -d),
                    d => format!("${n} + {d}"),
                };
                vec![
                    line(format!("${n} = intval(fgets(STDIN));")),
                    line(format!("${a} = range({first}, {end});")),
                ]
            }
        }
    }

    fn read_loop(&self, source: Source, names: &Names, stream: &mut Stream) -> Head {
        let (x, n) = (names.element, names.bound);
        if source == Source::Column {
            return Head {
                before: vec![line(format!("${n} = intval(fgets(STDIN));"))],
                open: format!("for ($i = 0; $i < ${n}; $i++) {{"),
                first: vec![line(format!("{x} = intval(fgets(STDIN));", x = self.var(x)))],
            };
        }
        let Source::Range { first, beyond } = source else {
            return Head::new(
                self.read_list(source, names, stream),
                self.list_loop(source.kind(), names.list, x),
            );
        };
        let end = match beyond {
            0 => format!("${x} <= ${n}"),
            -1 => format!("${x} < ${n}"),
            d => format!("${x} <= ${n} + {d}"),
        };
        let header = format!("for (${x} = {first}; {end}; ${x}++) {{");
        Head::new(vec![line(format!("${n} = intval(fgets(STDIN));"))], header)
    }

    fn list_loop(&self, _: Kind, list: &str, x: &str) -> String {
        format!("foreach (${list} as ${x}) {{")
    }

    fn list_op(&self, op: Op, _: Kind, list: &str, _: &Names, stream: &mut Stream) -> Vec<Code> {
        let templates: &[&str] = match op {
            Op::Sort => &["sort({a});"],
            Op::SortDescending => &["rsort({a});"],
            Op::SortByLength => &["usort({a}, fn($p, $q) => [strlen($p), $p] <=> [strlen($q), $q]);"],
            Op::Drop(_) => &["{a} = array_slice({a}, {k});"],
            Op::Last(_) => &["{a} = array_slice({a}, -{k});"],
            Op::EveryOther => {
                &["{a} = array_filter(array_values({a}), fn($i) => $i % 2 == 0, ARRAY_FILTER_USE_KEY);"]
            }
            Op::PrefixSums => {
                &["$sum = 0;\n{a} = array_map(function ($x) use (&$sum) { return $sum += $x; }, {a});"]
            }
            Op::Differences => &["{a} = array_values({a});\n$diff = [];\n\
                for ($i = 1; $i < count({a}); $i++) {\n    $diff[] = {a}[$i] - {a}[$i - 1];\n}\n{a} = $diff;"],
            Op::Reverse => &["{a} = array_reverse({a});"],
            Op::Dedup => &["{a} = array_unique({a});"],
            Op::Take(_) => &["{a} = array_slice({a}, 0, {k});"],
            _ => &[],
        };
        vec![line(fill(&pick(stream, templates, op), &[("{a}", &self.var(list))]))]
    }

    fn element_ops(&self, ops: &[Op], _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = self.var(names.element);
        let mut code = Vec::new();
        for &op in ops {
            let named = match op {
                Op::Upper => Some("strtoupper"),
                Op::Backwards => Some("strrev"),
                Op::Length => Some("strlen"),
                Op::Capitalize => Some("ucfirst"),
                _ => None,
            };
            let value = match named {
                Some(function) if stream.chance(0.6) => format!("array_map('{function}', ${list})"),
                _ if op.form() == Form::Keep => {
                    format!("array_filter(${list}, fn({x}) => {})", self.keep(op, &x, stream))
                }
                _ => format!("array_map(fn({x}) => {}, ${list})", self.map(op, &x, stream)),
            };
            code.push(line(format!("${list} = {value};")));
        }
        code
    }

    fn value(&self, sink: Sink, _: Kind, list: &str, _: &mut Stream) -> Option<String> {
        Some(match sink {
            Sink::Sum => format!("array_sum(${list})"),
            Sink::Count => format!("count(${list})"),
            Sink::Max => format!("max(${list})"),
            Sink::Min => format!("min(${list})"),
            Sink::Spread => format!("max(${list}) - min(${list})"),
            Sink::Distinct => format!("count(array_unique(${list}))"),
            Sink::First => format!("reset(${list})"),
            Sink::Final => format!("end(${list})"),
            Sink::Joined(_) | Sink::Lines => return None,
        })
    }

    fn show(&self, sink: Sink, _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match sink {
            Sink::Joined(c) => vec![line(format!("echo implode('{c}', ${list}), \"\\n\";"))],
            _ if stream.chance(0.5) => vec![line(format!("echo implode(\"\\n\", ${list}), \"\\n\";"))],
            _ => vec![block(
                self.list_loop(Kind::Word, list, x),
                vec![line(format!("echo ${x}, \"\\n\";"))],
                "}",
            )],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("echo {value}, \"\\n\";")
    }

    fn wrap(&self, body: Vec<Code>) -> Vec<Code> {
        let mut code = vec![line("<?php")];
        code.extend(body);
        code
    }
}
