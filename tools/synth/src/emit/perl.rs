//! Perl: `grep` and `map` as steps or as one chain, or loops.

use cognate_random::Stream;

use super::code::{Code, arithmetic, block, fill, line, pick, render};
use super::{Emitter, Head, Names, Style, finish};
use crate::ir::{Form, Kind, Op, Pipeline, Sink, Source};

pub struct Perl;

impl Emitter for Perl {
    fn language(&self) -> &'static str {
        "perl"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Steps, 0.4), (Style::Chain, 0.3), (Style::Loop, 0.3)]
    }

    fn indent(&self) -> &'static str {
        "    "
    }

    fn var(&self, name: &str) -> String {
        format!("${name}")
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Lacks(_) => &["{x} !~ /{c}/"],
            Op::Shorter(_) => &["length({x}) < {k}"],
            Op::LengthIs(_) => &["length({x}) == {k}"],
            Op::StartsWith(_) => &["{x} =~ /^{c}/"],
            Op::EndsWith(_) => &["{x} =~ /{c}$/"],
            Op::Palindrome => &["{x} eq scalar reverse({x})"],
            Op::Contains(_) => &["{x} =~ /{c}/"],
            Op::Longer(_) => &["length({x}) > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x), ("$_ =~ ", "")])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Square => &["{x} * {x}", "{x} ** 2"],
            Op::Cube => &["{x} ** 3", "{x} * {x} * {x}"],
            Op::Halve => &["int({x} / 2)"],
            Op::Distance(_) => &["abs({x} - {k})"],
            Op::DigitSum => &["sum0(split(//, {x}))"],
            Op::Capitalize => &["ucfirst({x})"],
            Op::FirstLetter => &["substr({x}, 0, 1)"],
            Op::LastLetter => &["substr({x}, -1)"],
            Op::Twice => &["{x} x 2", "{x} . {x}"],
            Op::Replace(..) => &["{x} =~ s/{c}/{d}/gr"],
            Op::CountOf(_) => &["({x} =~ tr/{c}//)"],
            Op::Upper => &["uc({x})"],
            Op::Backwards => &["scalar reverse({x})"],
            Op::Length => &["length({x})"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x), ("$_ =~ ", "")])
    }

    fn open_if(&self, condition: &str) -> String {
        format!("if ({condition}) {{")
    }

    fn close(&self) -> &'static str {
        "}"
    }

    fn bind(&self, _: Kind, name: &str, value: &str) -> String {
        format!("my ${name} = {value};")
    }

    fn new_list(&self, _: Kind, name: &str) -> String {
        format!("my @{name};")
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("push @{list}, {value};")
    }

    fn add_to(&self, name: &str, value: &str) -> String {
        if value == "1" { format!("${name}++;") } else { format!("${name} += {value};") }
    }

    fn read_list(&self, source: Source, names: &Names, _: &mut Stream) -> Vec<Code> {
        let mut code = bound(source, names);
        code.push(line(format!("my @{} = {};", names.list, elements(source, names.bound))));
        code
    }

    fn read_loop(&self, source: Source, names: &Names, stream: &mut Stream) -> Head {
        if stream.chance(0.5) {
            let header = format!("for my ${} ({}) {{", names.element, elements(source, names.bound));
            return Head::new(bound(source, names), header);
        }
        Head::new(
            self.read_list(source, names, stream),
            self.list_loop(source.kind(), names.list, names.element),
        )
    }

    fn list_loop(&self, _: Kind, list: &str, x: &str) -> String {
        format!("for my ${x} (@{list}) {{")
    }

    fn list_op(&self, op: Op, kind: Kind, list: &str, _: &Names, stream: &mut Stream) -> Vec<Code> {
        vec![line(match op {
            Op::Drop(k) => format!("splice(@{list}, 0, {k});"),
            Op::EveryOther => format!("@{list} = @{list}[grep {{ $_ % 2 == 0 }} 0 .. $#{list}];"),
            Op::PrefixSums => format!("my $sum = 0;\n@{list} = map {{ $sum += $_ }} @{list};"),
            Op::Differences => {
                format!("@{list} = map {{ ${list}[$_] - ${list}[$_ - 1] }} 1 .. $#{list};")
            }
            Op::Take(k) if stream.chance(0.5) => format!("splice(@{list}, {k}) if @{list} > {k};"),
            _ => format!("@{list} = {} @{list};", function(op, kind)),
        })]
    }

    fn element_ops(&self, ops: &[Op], _: Kind, list: &str, _: &Names, stream: &mut Stream) -> Vec<Code> {
        ops.iter().map(|&op| line(format!("@{list} = {} @{list};", self.call(op, stream)))).collect()
    }

    fn chain(&self, pipeline: &Pipeline, names: &Names, stream: &mut Stream) -> Option<Vec<Code>> {
        if pipeline.ops.iter().any(|op| matches!(op, Op::EveryOther | Op::PrefixSums | Op::Differences)) {
            return None;
        }
        let mut code = bound(pipeline.source, names);
        let mut value = elements(pipeline.source, names.bound);
        for (&op, kind) in pipeline.ops.iter().zip(pipeline.kinds()) {
            let call = match op {
                // `sort uniq LIST` would take `uniq` for the comparison.
                Op::Sort if kind == Kind::Word => "sort { $a cmp $b }".to_owned(),
                _ if op.form() == Form::List => function(op, kind),
                _ => self.call(op, stream),
            };
            value = format!("{call} {value}");
        }
        code.push(line(format!("my @{} = {value};", names.list)));
        code.extend(finish(self, pipeline, names.list, names, stream));
        Some(code)
    }

    fn value(&self, sink: Sink, _: Kind, list: &str, _: &mut Stream) -> Option<String> {
        Some(match sink {
            Sink::Sum => format!("sum0(@{list})"),
            Sink::Count => format!("scalar(@{list})"),
            Sink::Max => format!("max(@{list})"),
            Sink::Min => format!("min(@{list})"),
            Sink::Spread => format!("max(@{list}) - min(@{list})"),
            Sink::Distinct => format!("scalar(uniq @{list})"),
            Sink::First => format!("${list}[0]"),
            Sink::Final => format!("${list}[-1]"),
            Sink::Joined(_) | Sink::Lines => return None,
        })
    }

    fn show(&self, sink: Sink, _: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let short = stream.chance(0.5);
        match sink {
            Sink::Joined(' ') if short => vec![line(format!("print \"@{list}\\n\";"))],
            Sink::Joined(c) => vec![line(format!("print join(\"{c}\", @{list}), \"\\n\";"))],
            _ if short => vec![line(format!("print \"$_\\n\" for @{list};"))],
            _ => vec![block(
                self.list_loop(Kind::Word, list, names.element),
                vec![line(format!("print \"${}\\n\";", names.element))],
                "}",
            )],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("print {value}, \"\\n\";")
    }

    fn wrap(&self, body: Vec<Code>) -> Vec<Code> {
        let text = render(&body, "");
        let used: Vec<&str> = ["sum0(", "max(", "min(", "uniq ", "head ", "tail "]
            .into_iter()
            .filter(|f| text.contains(f))
            .map(|f| f.trim_end_matches(['(', ' ']))
            .collect();
        if used.is_empty() {
            return body;
        }
        let mut code = vec![line(format!("use List::Util qw({});", used.join(" ")))];
        code.extend(body);
        code
    }
}

impl Perl {
    /// `grep { … }` or `map { … }` of an element-wise operation.
    fn call(&self, op: Op, stream: &mut Stream) -> String {
        if op.form() == Form::Keep {
            format!("grep {{ {} }}", self.keep(op, "$_", stream))
        } else {
            format!("map {{ {} }}", self.map(op, "$_", stream))
        }
    }
}

fn bound(source: Source, names: &Names) -> Vec<Code> {
    match source {
        Source::Range { .. } | Source::Column => vec![line(format!("my ${} = <STDIN>;", names.bound))],
        _ => vec![],
    }
}

fn elements(source: Source, n: &str) -> String {
    match source {
        Source::Column => format!("map {{ <STDIN> + 0 }} 1 .. ${n}"),
        Source::WordLines => "split(' ', join('', <STDIN>))".to_owned(),
        Source::Ints | Source::Signed | Source::Words => "split(' ', <STDIN>)".to_owned(),
        Source::Range { first, beyond: 0 } => format!("({first} .. ${n})"),
        Source::Range { first, beyond } if beyond < 0 => format!("({first} .. ${n} - {})", -beyond),
        Source::Range { first, beyond } => format!("({first} .. ${n} + {beyond})"),
    }
}

/// What stands before a list to apply a list operation.
fn function(op: Op, kind: Kind) -> String {
    match (op, kind) {
        (Op::Sort, Kind::Int) => "sort { $a <=> $b }".to_owned(),
        (Op::Sort, Kind::Word) => "sort".to_owned(),
        (Op::SortDescending, Kind::Int) => "sort { $b <=> $a }".to_owned(),
        (Op::SortDescending, Kind::Word) => "sort { $b cmp $a }".to_owned(),
        (Op::SortByLength, _) => "sort { length($a) <=> length($b) || $a cmp $b }".to_owned(),
        (Op::Drop(k), _) => format!("tail -{k},"),
        (Op::Last(k), _) => format!("tail {k},"),
        (Op::Reverse, _) => "reverse".to_owned(),
        (Op::Dedup, _) => "uniq".to_owned(),
        (Op::Take(k), _) => format!("head {k},"),
        _ => String::new(),
    }
}
