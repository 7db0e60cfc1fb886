//! Python: comprehensions, `map` and `filter`, or loops.

use cognate_random::Stream;

use super::code::{Code, arithmetic, block, fill, line, pick, render};
use super::{Emitter, Head, Names, Style};
use crate::ir::{Form, Kind, Op, Sink, Source};

pub struct Python;

impl Emitter for Python {
    fn language(&self) -> &'static str {
        "python"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Steps, 0.65), (Style::Loop, 0.35)]
    }

    fn indent(&self) -> &'static str {
        "    "
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Odd => &["{x} % 2 == 1", "{x} % 2 != 0"],
            Op::Between(..) => &["{k} <= {x} <= {j}", "{x} >= {k} and {x} <= {j}"],
            Op::Lacks(_) => &["\"{c}\" not in {x}"],
            Op::Shorter(_) => &["len({x}) < {k}"],
            Op::LengthIs(_) => &["len({x}) == {k}"],
            Op::StartsWith(_) => &["{x}.startswith(\"{c}\")", "{x}[0] == \"{c}\""],
            Op::EndsWith(_) => &["{x}.endswith(\"{c}\")", "{x}[-1] == \"{c}\""],
            Op::Palindrome => &["{x} == {x}[::-1]"],
            Op::Contains(_) => &["\"{c}\" in {x}"],
            Op::Longer(_) => &["len({x}) > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Square => &["{x} * {x}", "{x} ** 2"],
            Op::Cube => &["{x} ** 3", "{x} * {x} * {x}"],
            Op::Halve => &["{x} // 2"],
            Op::Distance(_) => &["abs({x} - {k})"],
            Op::DigitSum => &["sum(map(int, str({x})))", "sum(int(d) for d in str({x}))"],
            Op::Capitalize => &["{x}.capitalize()"],
            Op::FirstLetter => &["{x}[0]"],
            Op::LastLetter => &["{x}[-1]"],
            Op::Twice => &["{x} * 2", "{x} + {x}"],
            Op::Replace(..) => &["{x}.replace(\"{c}\", \"{d}\")"],
            Op::CountOf(_) => &["{x}.count(\"{c}\")"],
            Op::Upper => &["{x}.upper()"],
            Op::Backwards => &["{x}[::-1]"],
            Op::Length => &["len({x})"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn open_if(&self, condition: &str) -> String {
        format!("if {condition}:")
    }

    fn close(&self) -> &'static str {
        ""
    }

    fn and(&self) -> &'static str {
        " and "
    }

    fn bind(&self, _: Kind, name: &str, value: &str) -> String {
        format!("{name} = {value}")
    }

    fn new_list(&self, _: Kind, name: &str) -> String {
        format!("{name} = []")
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("{list}.append({value})")
    }

    fn read_list(&self, source: Source, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let (a, x, n) = (names.list, names.element, names.bound);
        match source {
            Source::Column => vec![
                line(format!("{n} = int(input())")),
                line(format!("{a} = [int(input()) for _ in range({n})]")),
            ],
            Source::WordLines if stream.chance(0.5) => {
                vec![line("import sys"), line(format!("{a} = sys.stdin.read().split()"))]
            }
            Source::WordLines => {
                vec![line("import sys"), line(format!("{a} = [{x}.strip() for {x} in sys.stdin]"))]
            }
            Source::Ints | Source::Signed if stream.chance(0.6) => {
                vec![line(format!("{a} = list(map(int, input().split()))"))]
            }
            Source::Ints | Source::Signed => {
                vec![line(format!("{a} = [int({x}) for {x} in input().split()]"))]
            }
            Source::Words => vec![line(format!("{a} = input().split()"))],
            Source::Range { .. } => {
                vec![line(format!("{n} = int(input())")), line(format!("{a} = list({})", range(source, n)))]
            }
        }
    }

    fn read_loop(&self, source: Source, names: &Names, stream: &mut Stream) -> Head {
        let (x, n) = (names.element, names.bound);
        match source {
            Source::Range { .. } => Head::new(
                vec![line(format!("{n} = int(input())"))],
                format!("for {x} in {}:", range(source, n)),
            ),
            Source::Column => Head {
                before: vec![line(format!("{n} = int(input())"))],
                open: format!("for _ in range({n}):"),
                first: vec![line(format!("{x} = int(input())"))],
            },
            Source::Ints | Source::Signed if stream.chance(0.4) => {
                Head::new(vec![], format!("for {x} in map(int, input().split()):"))
            }
            _ => Head::new(self.read_list(source, names, stream), format!("for {x} in {}:", names.list)),
        }
    }

    fn list_loop(&self, _: Kind, list: &str, x: &str) -> String {
        format!("for {x} in {list}:")
    }

    fn list_op(&self, op: Op, _: Kind, list: &str, _: &Names, stream: &mut Stream) -> Vec<Code> {
        let templates: &[&str] = match op {
            Op::Sort => &["{a}.sort()", "{a} = sorted({a})"],
            Op::SortDescending => &["{a}.sort(reverse=True)", "{a} = sorted({a}, reverse=True)"],
            Op::SortByLength => &["{a}.sort(key=lambda w: (len(w), w))"],
            Op::Drop(_) => &["{a} = {a}[{k}:]"],
            Op::Last(_) => &["{a} = {a}[-{k}:]"],
            Op::EveryOther => &["{a} = {a}[::2]"],
            Op::PrefixSums => &["{a} = list(accumulate({a}))"],
            Op::Differences => &["{a} = [q - p for p, q in zip({a}, {a}[1:])]"],
            Op::Reverse => &["{a}.reverse()", "{a} = {a}[::-1]"],
            Op::Dedup => &["{a} = list(dict.fromkeys({a}))"],
            Op::Take(_) => &["{a} = {a}[:{k}]"],
            _ => &[],
        };
        vec![line(fill(&pick(stream, templates, op), &[("{a}", list)]))]
    }

    fn element_ops(&self, ops: &[Op], _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = names.element;
        let functional = stream.chance(0.3);
        let mut code = Vec::new();
        let mut rest = ops;
        while let Some((&op, after)) = rest.split_first() {
            rest = after;
            let next_map = after.first().filter(|next| next.form() == Form::Map && op.form() == Form::Keep);
            let value = match (op.form(), functional) {
                (Form::Keep, true) => {
                    format!("list(filter(lambda {x}: {}, {list}))", self.keep(op, x, stream))
                }
                (Form::Keep, false) => {
                    let condition = self.keep(op, x, stream);
                    let value = match next_map {
                        Some(&map) => {
                            rest = &after[1..];
                            self.map(map, x, stream)
                        }
                        None => x.to_owned(),
                    };
                    format!("[{value} for {x} in {list} if {condition}]")
                }
                (_, true) if op == Op::Length => format!("list(map(len, {list}))"),
                (_, true) => format!("list(map(lambda {x}: {}, {list}))", self.map(op, x, stream)),
                (_, false) => format!("[{} for {x} in {list}]", self.map(op, x, stream)),
            };
            code.push(line(format!("{list} = {value}")));
        }
        code
    }

    fn value(&self, sink: Sink, _: Kind, list: &str, _: &mut Stream) -> Option<String> {
        Some(match sink {
            Sink::Sum => format!("sum({list})"),
            Sink::Count => format!("len({list})"),
            Sink::Max => format!("max({list})"),
            Sink::Min => format!("min({list})"),
            Sink::Spread => format!("max({list}) - min({list})"),
            Sink::Distinct => format!("len(set({list}))"),
            Sink::First => format!("{list}[0]"),
            Sink::Final => format!("{list}[-1]"),
            Sink::Joined(_) | Sink::Lines => return None,
        })
    }

    fn show(&self, sink: Sink, kind: Kind, a: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = names.element;
        let texts = if kind == Kind::Int { format!("map(str, {a})") } else { a.to_owned() };
        let unpack = stream.chance(0.5);
        match sink {
            Sink::Joined(' ') if unpack => vec![line(format!("print(*{a})"))],
            Sink::Joined(c) => vec![line(format!("print(\"{c}\".join({texts}))"))],
            _ if unpack => vec![line(format!("print(*{a}, sep=\"\\n\")"))],
            _ => vec![block(format!("for {x} in {a}:"), vec![line(format!("print({x})"))], "")],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("print({value})")
    }

    fn wrap(&self, body: Vec<Code>) -> Vec<Code> {
        let mut code = Vec::new();
        if render(&body, "").contains("accumulate(") {
            code.push(line("from itertools import accumulate"));
        }
        code.extend(body);
        code
    }
}

fn range(source: Source, n: &str) -> String {
    let Source::Range { first, beyond } = source else { return String::new() };
    let end = match beyond + 1 {
        0 => n.to_owned(),
        1 => format!("{n} + 1"),
        d if d < 0 => format!("{n} - {}", -d),
        d => format!("{n} + {d}"),
    };
    if first == 0 { format!("range({end})") } else { format!("range({first}, {end})") }
}
