//! Lua 5.4: loops over tables, for it has no list library.

use cognate_random::Stream;

use super::code::{Code, arithmetic, block, fill, line, pick, render};
use super::{Emitter, Head, Names, Style};
use crate::ir::{Kind, Op, Sink, Source};

pub struct Lua;

impl Emitter for Lua {
    fn language(&self) -> &'static str {
        "lua"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Loop, 1.0)]
    }

    fn indent(&self) -> &'static str {
        "  "
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Lacks(_) => &["not {x}:find(\"{c}\")"],
            Op::Shorter(_) => &["#{x} < {k}"],
            Op::LengthIs(_) => &["#{x} == {k}"],
            Op::StartsWith(_) => &["{x}:sub(1, 1) == \"{c}\""],
            Op::EndsWith(_) => &["{x}:sub(-1) == \"{c}\""],
            Op::Palindrome => &["{x} == {x}:reverse()"],
            Op::Contains(_) => &["{x}:find(\"{c}\")"],
            Op::Longer(_) => &["#{x} > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("!=", "~="), (" && ", " and "), ("{x}", x)])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Halve => &["{x} // 2"],
            Op::Distance(_) => &["math.abs({x} - {k})"],
            Op::DigitSum => &["digit_sum({x})"],
            Op::Capitalize => &["{x}:sub(1, 1):upper() .. {x}:sub(2)"],
            Op::FirstLetter => &["{x}:sub(1, 1)"],
            Op::LastLetter => &["{x}:sub(-1)"],
            Op::Twice => &["{x}:rep(2)", "{x} .. {x}"],
            Op::Replace(..) => &["({x}:gsub(\"{c}\", \"{d}\"))"],
            Op::CountOf(_) => &["select(2, {x}:gsub(\"{c}\", \"\"))"],
            Op::Upper => &["{x}:upper()"],
            Op::Backwards => &["{x}:reverse()"],
            Op::Length => &["#{x}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn open_if(&self, condition: &str) -> String {
        format!("if {condition} then")
    }

    fn close(&self) -> &'static str {
        "end"
    }

    fn and(&self) -> &'static str {
        " and "
    }

    fn bind(&self, _: Kind, name: &str, value: &str) -> String {
        format!("local {name} = {value}")
    }

    fn new_list(&self, _: Kind, name: &str) -> String {
        format!("local {name} = {{}}")
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("table.insert({list}, {value})")
    }

    fn add_to(&self, name: &str, value: &str) -> String {
        format!("{name} = {name} + {value}")
    }

    fn read_list(&self, source: Source, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let Head { before: mut code, open, .. } = self.read_loop(source, names, stream);
        code.push(line(self.new_list(source.kind(), names.list)));
        let value = match source {
            Source::Column => "io.read(\"n\")".to_owned(),
            Source::Ints | Source::Signed => format!("tonumber({})", names.element),
            _ => names.element.to_owned(),
        };
        code.push(block(open, vec![line(self.push(names.list, &value))], "end"));
        code
    }

    fn read_loop(&self, source: Source, names: &Names, _: &mut Stream) -> Head {
        let (x, n) = (names.element, names.bound);
        let mut head = Head::new(vec![], format!("for {x} in io.read():gmatch(\"%S+\") do"));
        match source {
            Source::Words => {}
            Source::WordLines => head.open = format!("for {x} in io.lines() do"),
            Source::Column => {
                head.before.push(line(format!("local {n} = io.read(\"n\")")));
                head.open = format!("for _ = 1, {n} do");
                head.first.push(line(format!("local {x} = io.read(\"n\")")));
            }
            Source::Ints | Source::Signed => head.first.push(line(format!("{x} = tonumber({x})"))),
            Source::Range { first, beyond } => {
                let end = match beyond {
                    0 => n.to_owned(),
                    d if d < 0 => format!("{n} - {}", -d),
                    d => format!("{n} + {d}"),
                };
                head.before.push(line(format!("local {n} = io.read(\"n\")")));
                head.open = format!("for {x} = {first}, {end} do");
            }
        }
        head
    }

    fn list_loop(&self, _: Kind, list: &str, x: &str) -> String {
        format!("for _, {x} in ipairs({list}) do")
    }

    fn list_op(&self, op: Op, kind: Kind, a: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match op {
            Op::Sort => vec![line(format!("table.sort({a})"))],
            Op::SortDescending => {
                vec![line(format!("table.sort({a}, function(p, q) return p > q end)"))]
            }
            Op::SortByLength => vec![block(
                format!("table.sort({a}, function(p, q)"),
                vec![line("if #p ~= #q then return #p < #q end"), line("return p < q")],
                "end)",
            )],
            Op::Drop(k) => vec![line(format!("{a} = table.move({a}, {}, #{a}, 1, {{}})", k + 1))],
            Op::Last(k) => {
                vec![line(format!("{a} = table.move({a}, math.max(1, #{a} - {}), #{a}, 1, {{}})", k - 1))]
            }
            Op::EveryOther => vec![
                line("local half = {}"),
                block(
                    format!("for i = 1, #{a}, 2 do"),
                    vec![line(self.push("half", &format!("{a}[i]")))],
                    "end",
                ),
                line(format!("{a} = half")),
            ],
            Op::PrefixSums => vec![block(
                format!("for i = 2, #{a} do"),
                vec![line(format!("{a}[i] = {a}[i] + {a}[i - 1]"))],
                "end",
            )],
            Op::Differences => vec![
                line("local diff = {}"),
                block(
                    format!("for i = 2, #{a} do"),
                    vec![line(self.push("diff", &format!("{a}[i] - {a}[i - 1]")))],
                    "end",
                ),
                line(format!("{a} = diff")),
            ],
            Op::Take(k) if stream.chance(0.5) => {
                vec![block(format!("while #{a} > {k} do"), vec![line(format!("table.remove({a})"))], "end")]
            }
            Op::Take(k) => vec![line(format!("{a} = table.move({a}, 1, {k}, 1, {{}})"))],
            Op::Reverse => vec![
                line("local r = {}"),
                block(
                    format!("for i = #{a}, 1, -1 do"),
                    vec![line(self.push("r", &format!("{a}[i]")))],
                    "end",
                ),
                line(format!("{a} = r")),
            ],
            Op::Dedup => {
                let body = vec![line(format!("seen[{x}] = true")), line(self.push("u", x))];
                vec![
                    line("local seen, u = {}, {}"),
                    block(
                        self.list_loop(kind, a, x),
                        vec![block(format!("if not seen[{x}] then"), body, "end")],
                        "end",
                    ),
                    line(format!("{a} = u")),
                ]
            }
            _ => vec![],
        }
    }

    /// Never called: there is no style of steps.
    fn element_ops(&self, _: &[Op], _: Kind, _: &str, _: &Names, _: &mut Stream) -> Vec<Code> {
        Vec::new()
    }

    fn value(&self, sink: Sink, _: Kind, list: &str, _: &mut Stream) -> Option<String> {
        match sink {
            Sink::Count => Some(format!("#{list}")),
            Sink::Max => Some(format!("math.max(table.unpack({list}))")),
            Sink::Min => Some(format!("math.min(table.unpack({list}))")),
            Sink::Spread => Some(format!("math.max(table.unpack({list})) - math.min(table.unpack({list}))")),
            Sink::First => Some(format!("{list}[1]")),
            Sink::Final => Some(format!("{list}[#{list}]")),
            Sink::Sum | Sink::Distinct | Sink::Joined(_) | Sink::Lines => None,
        }
    }

    /// The number of different elements.
    fn fold(&self, _: Sink, kind: Kind, list: &str, names: &Names) -> Vec<Code> {
        let (x, value) = (names.element, names.value);
        let body = vec![line(format!("known[{x}] = true")), line(format!("{value} = {value} + 1"))];
        vec![
            line(format!("local known, {value} = {{}}, 0")),
            block(
                self.list_loop(kind, list, x),
                vec![block(format!("if not known[{x}] then"), body, "end")],
                "end",
            ),
        ]
    }

    fn wrap(&self, body: Vec<Code>) -> Vec<Code> {
        let mut code = Vec::new();
        if render(&body, "").contains("digit_sum(") {
            code.push(block(
                "local function digit_sum(n)",
                vec![
                    line("local s = 0"),
                    block("while n > 0 do", vec![line("s = s + n % 10"), line("n = n // 10")], "end"),
                    line("return s"),
                ],
                "end\n\n",
            ));
        }
        code.extend(body);
        code
    }

    fn show(&self, sink: Sink, kind: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match sink {
            Sink::Joined(c) => vec![line(format!("print(table.concat({list}, \"{c}\"))"))],
            _ if stream.chance(0.4) => vec![line(format!("print(table.concat({list}, \"\\n\"))"))],
            _ => vec![block(self.list_loop(kind, list, x), vec![line(format!("print({x})"))], "end")],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("print({value})")
    }
}
