//! Ruby: enumerable methods as steps or as one chain, or `each` loops.

use cognate_random::Stream;

use super::code::{Code, arithmetic, fill, line, pick};
use super::{Emitter, Head, Names, Style, finish, scalar};
use crate::ir::{Form, Kind, Op, Pipeline, Sink, Source};

pub struct Ruby;

impl Emitter for Ruby {
    fn language(&self) -> &'static str {
        "ruby"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Steps, 0.35), (Style::Chain, 0.4), (Style::Loop, 0.25)]
    }

    fn indent(&self) -> &'static str {
        "  "
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Even => &["{x}.even?", "{x} % 2 == 0"],
            Op::Odd => &["{x}.odd?"],
            Op::Between(..) => &["{x}.between?({k}, {j})", "{x} >= {k} && {x} <= {j}"],
            Op::Lacks(_) => &["!{x}.include?(\"{c}\")"],
            Op::Shorter(_) => &["{x}.length < {k}", "{x}.size < {k}"],
            Op::LengthIs(_) => &["{x}.length == {k}", "{x}.size == {k}"],
            Op::StartsWith(_) => &["{x}.start_with?(\"{c}\")"],
            Op::EndsWith(_) => &["{x}.end_with?(\"{c}\")"],
            Op::Palindrome => &["{x} == {x}.reverse"],
            Op::Contains(_) => &["{x}.include?(\"{c}\")"],
            Op::Longer(_) => &["{x}.length > {k}", "{x}.size > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Square => &["{x} * {x}", "{x} ** 2"],
            Op::Cube => &["{x} ** 3", "{x} * {x} * {x}"],
            Op::Halve => &["{x} / 2"],
            Op::Distance(_) => &["({x} - {k}).abs"],
            Op::DigitSum => &["{x}.digits.sum"],
            Op::Capitalize => &["{x}.capitalize"],
            Op::FirstLetter => &["{x}[0]"],
            Op::LastLetter => &["{x}[-1]"],
            Op::Twice => &["{x} * 2", "{x} + {x}"],
            Op::Replace(..) => &["{x}.gsub(\"{c}\", \"{d}\")", "{x}.tr(\"{c}\", \"{d}\")"],
            Op::CountOf(_) => &["{x}.count(\"{c}\")"],
            Op::Upper => &["{x}.upcase"],
            Op::Backwards => &["{x}.reverse"],
            Op::Length => &["{x}.length", "{x}.size"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn open_if(&self, condition: &str) -> String {
        format!("if {condition}")
    }

    fn close(&self) -> &'static str {
        "end"
    }

    fn bind(&self, _: Kind, name: &str, value: &str) -> String {
        format!("{name} = {value}")
    }

    fn new_list(&self, _: Kind, name: &str) -> String {
        format!("{name} = []")
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("{list} << {value}")
    }

    fn read_list(&self, source: Source, names: &Names, _: &mut Stream) -> Vec<Code> {
        let mut code = bound(source, names);
        code.push(line(match source {
            Source::Range { .. } => format!("{} = {}.to_a", names.list, elements(source, names.bound)),
            _ => format!("{} = {}", names.list, elements(source, names.bound)),
        }));
        code
    }

    fn read_loop(&self, source: Source, names: &Names, stream: &mut Stream) -> Head {
        let (x, n) = (names.element, names.bound);
        match source {
            Source::Column => Head {
                before: bound(source, names),
                open: format!("{n}.times do"),
                first: vec![line(format!("{x} = gets.to_i"))],
            },
            Source::Range { .. } => {
                Head::new(bound(source, names), format!("{}.each do |{x}|", elements(source, n)))
            }
            _ => {
                Head::new(self.read_list(source, names, stream), self.list_loop(source.kind(), names.list, x))
            }
        }
    }

    fn list_loop(&self, _: Kind, list: &str, x: &str) -> String {
        format!("{list}.each do |{x}|")
    }

    fn list_op(&self, op: Op, _: Kind, list: &str, _: &Names, stream: &mut Stream) -> Vec<Code> {
        if op == Op::PrefixSums {
            return vec![line("sum = 0"), line(format!("{list} = {list}.map {{ |x| sum += x }}"))];
        }
        vec![line(format!("{list} = {list}{}", method(op, stream)))]
    }

    fn element_ops(&self, ops: &[Op], _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        ops.iter()
            .map(|&op| line(format!("{list} = {list}{}", self.call(op, names.element, stream))))
            .collect()
    }

    fn chain(&self, pipeline: &Pipeline, names: &Names, stream: &mut Stream) -> Option<Vec<Code>> {
        if pipeline.ops.contains(&Op::PrefixSums) {
            return None;
        }
        let mut code = bound(pipeline.source, names);
        let mut value = elements(pipeline.source, names.bound);
        if let (Source::Range { .. }, Form::List) = (pipeline.source, pipeline.ops[0].form()) {
            value.push_str(".to_a");
        }
        for &op in &pipeline.ops {
            let call = if op.form() == Form::List {
                method(op, stream)
            } else {
                self.call(op, names.element, stream)
            };
            value.push_str(&call);
        }
        let kind = pipeline.kinds()[pipeline.ops.len()];
        if pipeline.ops.len() < 3
            && pipeline.sink != Sink::Spread
            && stream.chance(0.5)
            && let Some(value) = self.value(pipeline.sink, kind, &value, stream)
        {
            code.push(line(format!("puts {}", scalar(pipeline.scalar, &value))));
            return Some(code);
        }
        code.push(line(format!("{} = {value}", names.list)));
        code.extend(finish(self, pipeline, names.list, names, stream));
        Some(code)
    }

    fn value(&self, sink: Sink, _: Kind, list: &str, stream: &mut Stream) -> Option<String> {
        Some(match sink {
            Sink::Sum => format!("{list}.sum"),
            Sink::Count => format!("{list}.{}", stream.choose(&["length", "size"])),
            Sink::Max => format!("{list}.max"),
            Sink::Min => format!("{list}.min"),
            Sink::Spread => format!("{list}.max - {list}.min"),
            Sink::Distinct => format!("{list}.uniq.{}", stream.choose(&["length", "size"])),
            Sink::First => format!("{list}.first"),
            Sink::Final => format!("{list}.last"),
            Sink::Joined(_) | Sink::Lines => return None,
        })
    }

    fn show(&self, sink: Sink, _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match sink {
            Sink::Joined(c) => vec![line(format!("puts {list}.join(\"{c}\")"))],
            _ if stream.chance(0.5) => vec![line(format!("puts {list}"))],
            _ => vec![line(format!("{list}.each {{ |{x}| puts {x} }}"))],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("puts {value}")
    }
}

impl Ruby {
    /// `.select { … }` or `.map { … }` of an element-wise operation.
    fn call(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let short = stream.chance(0.5);
        let symbol = match op {
            Op::Even => ".select(&:even?)",
            Op::Odd => ".select(&:odd?)",
            Op::Upper => ".map(&:upcase)",
            Op::Backwards => ".map(&:reverse)",
            Op::Length => ".map(&:length)",
            Op::Capitalize => ".map(&:capitalize)",
            _ => "",
        };
        if short && !symbol.is_empty() {
            symbol.to_owned()
        } else if op.form() == Form::Keep {
            format!(".select {{ |{x}| {} }}", self.keep(op, x, stream))
        } else {
            format!(".map {{ |{x}| {} }}", self.map(op, x, stream))
        }
    }
}

fn bound(source: Source, names: &Names) -> Vec<Code> {
    match source {
        Source::Range { .. } | Source::Column => vec![line(format!("{} = gets.to_i", names.bound))],
        _ => vec![],
    }
}

fn elements(source: Source, n: &str) -> String {
    match source {
        Source::Column => format!("Array.new({n}) {{ gets.to_i }}"),
        Source::WordLines => "STDIN.read.split".to_owned(),
        Source::Ints | Source::Signed => "gets.split.map(&:to_i)".to_owned(),
        Source::Words => "gets.split".to_owned(),
        Source::Range { first, beyond: 0 } => format!("({first}..{n})"),
        Source::Range { first, beyond: -1 } => format!("({first}...{n})"),
        Source::Range { first, beyond } => format!("({first}..{n} + {beyond})"),
    }
}

fn method(op: Op, stream: &mut Stream) -> String {
    let templates: &[&str] = match op {
        Op::Sort => &[".sort"],
        Op::Reverse => &[".reverse"],
        Op::SortDescending => &[".sort.reverse"],
        Op::SortByLength => &[".sort_by { |w| [w.length, w] }"],
        Op::Drop(_) => &[".drop({k})"],
        Op::Last(_) => &[".last({k})"],
        Op::EveryOther => &[".each_slice(2).map(&:first)"],
        Op::Differences => &[".each_cons(2).map { |p, q| q - p }"],
        Op::Dedup => &[".uniq"],
        Op::Take(_) => &[".first({k})", ".take({k})"],
        _ => return String::new(),
    };
    pick(stream, templates, op)
}
