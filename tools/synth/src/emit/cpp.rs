//! C++17: loops, and the algorithms of the standard library on whole vectors.

use cognate_random::Stream;

use super::code::{Code, arithmetic, block, fill, line, pick, render};
use super::{Emitter, Head, Names, Style};
use crate::ir::{Kind, Op, Sink, Source};

pub struct Cpp;

impl Emitter for Cpp {
    fn language(&self) -> &'static str {
        "cpp"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Loop, 1.0)]
    }

    fn indent(&self) -> &'static str {
        "    "
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Lacks(_) => &["{x}.find('{c}') == string::npos"],
            Op::Shorter(_) => &["{x}.size() < {k}"],
            Op::LengthIs(_) => &["{x}.size() == {k}"],
            Op::StartsWith(_) => &["{x}[0] == '{c}'", "{x}.front() == '{c}'"],
            Op::EndsWith(_) => &["{x}.back() == '{c}'"],
            Op::Palindrome => &["{x} == string({x}.rbegin(), {x}.rend())"],
            Op::Contains(_) => &["{x}.find('{c}') != string::npos"],
            Op::Longer(_) => &["{x}.size() > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Halve => &["{x} / 2"],
            Op::Distance(_) => &["abs({x} - {k})"],
            Op::DigitSum => &["digit_sum({x})"],
            Op::Capitalize => &["!{x}[0] = toupper({x}[0]);"],
            Op::FirstLetter => &["{x}.substr(0, 1)"],
            Op::LastLetter => &["{x}.substr({x}.size() - 1)"],
            Op::Twice => &["{x} + {x}"],
            Op::Replace(..) => &["!replace({x}.begin(), {x}.end(), '{c}', '{d}');"],
            // A variable may be named `count`.
            Op::CountOf(_) => &["std::count({x}.begin(), {x}.end(), '{c}')"],
            Op::Upper => &["!for (char &c : {x}) c = toupper(c);"],
            Op::Backwards => &["!reverse({x}.begin(), {x}.end());"],
            Op::Length => &["{x}.size()"],
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

    fn bind(&self, kind: Kind, name: &str, value: &str) -> String {
        format!("{} {name} = {value};", type_of(kind))
    }

    fn new_list(&self, kind: Kind, name: &str) -> String {
        format!("vector<{}> {name};", type_of(kind))
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("{list}.push_back({value});")
    }

    fn add_to(&self, name: &str, value: &str) -> String {
        if value == "1" { format!("{name}++;") } else { format!("{name} += {value};") }
    }

    fn read_list(&self, source: Source, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let Head { before: mut code, open, first: mut body } = self.read_loop(source, names, stream);
        code.push(line(self.new_list(source.kind(), names.list)));
        body.push(line(self.push(names.list, names.element)));
        code.push(block(open, body, "}"));
        code
    }

    fn read_loop(&self, source: Source, names: &Names, _: &mut Stream) -> Head {
        let (x, n) = (names.element, names.bound);
        if source == Source::Column {
            return Head {
                before: vec![line(format!("int {n};")), line(format!("cin >> {n};"))],
                open: format!("for (int i = 0; i < {n}; i++) {{"),
                first: vec![line(format!("long long {x};")), line(format!("cin >> {x};"))],
            };
        }
        let Source::Range { first, beyond } = source else {
            return Head::new(
                vec![line(format!("{} {x};", type_of(source.kind())))],
                format!("while (cin >> {x}) {{"),
            );
        };
        let end = match beyond {
            0 => format!("{x} <= {n}"),
            -1 => format!("{x} < {n}"),
            d => format!("{x} <= {n} + {d}"),
        };
        Head::new(
            vec![line(format!("int {n};")), line(format!("cin >> {n};"))],
            format!("for (long long {x} = {first}; {end}; {x}++) {{"),
        )
    }

    fn list_loop(&self, kind: Kind, list: &str, x: &str) -> String {
        format!("for ({} {x} : {list}) {{", type_of(kind))
    }

    fn list_op(&self, op: Op, kind: Kind, a: &str, names: &Names, _: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match op {
            Op::Sort => vec![line(format!("sort({a}.begin(), {a}.end());"))],
            Op::Reverse => vec![line(format!("reverse({a}.begin(), {a}.end());"))],
            Op::SortDescending => vec![line(format!("sort({a}.rbegin(), {a}.rend());"))],
            Op::SortByLength => vec![block(
                format!("sort({a}.begin(), {a}.end(), [](const string &p, const string &q) {{"),
                vec![line("return p.size() != q.size() ? p.size() < q.size() : p < q;")],
                "});",
            )],
            Op::Drop(k) => {
                vec![line(format!("{a}.erase({a}.begin(), {a}.begin() + min<size_t>({k}, {a}.size()));"))]
            }
            Op::Last(k) => {
                vec![line(format!("if ({a}.size() > {k}) {a}.erase({a}.begin(), {a}.end() - {k});"))]
            }
            Op::EveryOther => vec![
                line(self.new_list(kind, "half")),
                line(format!("for (size_t i = 0; i < {a}.size(); i += 2) half.push_back({a}[i]);")),
                line(format!("{a} = half;")),
            ],
            Op::PrefixSums => vec![line(format!("partial_sum({a}.begin(), {a}.end(), {a}.begin());"))],
            Op::Differences => vec![
                line(format!("adjacent_difference({a}.begin(), {a}.end(), {a}.begin());")),
                line(format!("if (!{a}.empty()) {a}.erase({a}.begin());")),
            ],
            Op::Take(k) => vec![line(format!("if ({a}.size() > {k}) {a}.resize({k});"))],
            Op::Dedup => vec![
                line(format!("set<{}> seen;", type_of(kind))),
                line(self.new_list(kind, "u")),
                block(
                    self.list_loop(kind, a, x),
                    vec![line(format!("if (seen.insert({x}).second) u.push_back({x});"))],
                    "}",
                ),
                line(format!("{a} = u;")),
            ],
            _ => vec![],
        }
    }

    /// Never called: there is no style of steps.
    fn element_ops(&self, _: &[Op], _: Kind, _: &str, _: &Names, _: &mut Stream) -> Vec<Code> {
        Vec::new()
    }

    fn value(&self, sink: Sink, kind: Kind, list: &str, _: &mut Stream) -> Option<String> {
        match sink {
            Sink::Sum => Some(format!("accumulate({list}.begin(), {list}.end(), 0LL)")),
            Sink::Count => Some(format!("{list}.size()")),
            Sink::Max => Some(format!("*max_element({list}.begin(), {list}.end())")),
            Sink::Min => Some(format!("*min_element({list}.begin(), {list}.end())")),
            Sink::Spread => Some(format!(
                "*max_element({list}.begin(), {list}.end()) - *min_element({list}.begin(), {list}.end())"
            )),
            Sink::Distinct => Some(format!("set<{}>({list}.begin(), {list}.end()).size()", type_of(kind))),
            Sink::First => Some(format!("{list}.front()")),
            Sink::Final => Some(format!("{list}.back()")),
            Sink::Joined(_) | Sink::Lines => None,
        }
    }

    fn show(&self, sink: Sink, kind: Kind, a: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match sink {
            Sink::Joined(' ') if stream.chance(0.6) => vec![
                line(format!("for ({} {x} : {a}) cout << {x} << \" \";", type_of(kind))),
                line("cout << endl;"),
            ],
            Sink::Joined(c) => vec![
                block(
                    format!("for (size_t i = 0; i < {a}.size(); i++) {{"),
                    vec![line(format!("if (i) cout << \"{c}\";")), line(format!("cout << {a}[i];"))],
                    "}",
                ),
                line("cout << endl;"),
            ],
            _ => vec![line(format!("for ({} {x} : {a}) cout << {x} << endl;", type_of(kind)))],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("cout << {value} << endl;")
    }

    fn wrap(&self, body: Vec<Code>) -> Vec<Code> {
        let text = render(&body, "");
        let headers = [
            (
                "algorithm",
                &["sort(", "reverse(", "replace(", "count(", "min<", "max_element(", "min_element("][..],
            ),
            ("cstdlib", &["abs("]),
            ("iostream", &[""]),
            ("numeric", &["accumulate(", "partial_sum(", "adjacent_difference("]),
            ("set", &["set<"]),
            ("string", &["string"]),
            ("vector", &["vector<"]),
        ];
        let mut code: Vec<Code> = headers
            .into_iter()
            .filter(|(_, uses)| uses.iter().any(|u| text.contains(u)))
            .map(|(header, _)| line(format!("#include <{header}>")))
            .collect();
        code.push(line("using namespace std;\n\n"));
        if text.contains("digit_sum(") {
            code.push(block(
                "long long digit_sum(long long n) {",
                vec![
                    line("long long s = 0;"),
                    line("for (; n > 0; n /= 10) s += n % 10;"),
                    line("return s;"),
                ],
                "}\n\n",
            ));
        }
        code.push(block("int main() {", body, "}"));
        code
    }
}

fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "long long",
        Kind::Word => "string",
    }
}
