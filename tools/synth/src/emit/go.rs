//! Go: loops over slices, with the standard library's `sort` and `strings`.

use cognate_random::Stream;

use super::code::{Code, arithmetic, block, fill, line, pick, render};
use super::{Emitter, Head, Names, Style};
use crate::ir::{Kind, Op, Sink, Source};

pub struct Go;

impl Emitter for Go {
    fn language(&self) -> &'static str {
        "go"
    }

    fn styles(&self) -> &'static [(Style, f64)] {
        &[(Style::Loop, 1.0)]
    }

    fn indent(&self) -> &'static str {
        "\t"
    }

    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Lacks(_) => &["!strings.Contains({x}, \"{c}\")"],
            Op::Shorter(_) => &["len({x}) < {k}"],
            Op::LengthIs(_) => &["len({x}) == {k}"],
            Op::StartsWith(_) => &["strings.HasPrefix({x}, \"{c}\")", "{x}[0] == '{c}'"],
            Op::EndsWith(_) => &["strings.HasSuffix({x}, \"{c}\")"],
            Op::Palindrome => &["{x} == reverse({x})"],
            Op::Contains(_) => &["strings.Contains({x}, \"{c}\")"],
            Op::Longer(_) => &["len({x}) > {k}"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String {
        let templates: &[&str] = match op {
            Op::Halve => &["{x} / 2"],
            Op::Distance(_) => &["abs({x} - {k})"],
            Op::DigitSum => &["digitSum({x})"],
            Op::Capitalize => &["strings.ToUpper({x}[:1]) + {x}[1:]"],
            Op::FirstLetter => &["{x}[:1]"],
            Op::LastLetter => &["{x}[len({x})-1:]"],
            Op::Twice => &["{x} + {x}", "strings.Repeat({x}, 2)"],
            Op::Replace(..) => &["strings.ReplaceAll({x}, \"{c}\", \"{d}\")"],
            Op::CountOf(_) => &["strings.Count({x}, \"{c}\")"],
            Op::Upper => &["strings.ToUpper({x})"],
            Op::Backwards => &["reverse({x})"],
            Op::Length => &["len({x})"],
            _ => arithmetic(op),
        };
        fill(&pick(stream, templates, op), &[("{x}", x)])
    }

    fn open_if(&self, condition: &str) -> String {
        format!("if {condition} {{")
    }

    fn close(&self) -> &'static str {
        "}"
    }

    fn bind(&self, _: Kind, name: &str, value: &str) -> String {
        format!("{name} := {value}")
    }

    fn new_list(&self, kind: Kind, name: &str) -> String {
        format!("var {name} []{}", type_of(kind))
    }

    fn push(&self, list: &str, value: &str) -> String {
        format!("{list} = append({list}, {value})")
    }

    fn add_to(&self, name: &str, value: &str) -> String {
        if value == "1" { format!("{name}++") } else { format!("{name} += {value}") }
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
                before: vec![
                    line("in := bufio.NewReader(os.Stdin)"),
                    line(format!("var {n} int")),
                    line(format!("fmt.Fscan(in, &{n})")),
                ],
                open: format!("for i := 0; i < {n}; i++ {{"),
                first: vec![line(format!("var {x} int")), line(format!("fmt.Fscan(in, &{x})"))],
            };
        }
        let Source::Range { first, beyond } = source else {
            return Head::new(
                vec![
                    line("in := bufio.NewReader(os.Stdin)"),
                    line(format!("var {x} {}", type_of(source.kind()))),
                ],
                format!("for _, err := fmt.Fscan(in, &{x}); err == nil; _, err = fmt.Fscan(in, &{x}) {{"),
            );
        };
        let end = match beyond {
            0 => format!("{x} <= {n}"),
            -1 => format!("{x} < {n}"),
            d => format!("{x} <= {n}+{d}"),
        };
        Head::new(
            vec![line(format!("var {n} int")), line(format!("fmt.Scan(&{n})"))],
            format!("for {x} := {first}; {end}; {x}++ {{"),
        )
    }

    fn list_loop(&self, _: Kind, list: &str, x: &str) -> String {
        format!("for _, {x} := range {list} {{")
    }

    fn list_op(&self, op: Op, kind: Kind, a: &str, names: &Names, _: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match op {
            Op::Sort if kind == Kind::Int => vec![line(format!("sort.Ints({a})"))],
            Op::Sort => vec![line(format!("sort.Strings({a})"))],
            Op::Reverse => vec![block(
                format!("for i, j := 0, len({a})-1; i < j; i, j = i+1, j-1 {{"),
                vec![line(format!("{a}[i], {a}[j] = {a}[j], {a}[i]"))],
                "}",
            )],
            Op::SortDescending if kind == Kind::Int => {
                vec![line(format!("sort.Sort(sort.Reverse(sort.IntSlice({a})))"))]
            }
            Op::SortDescending => vec![line(format!("sort.Sort(sort.Reverse(sort.StringSlice({a})))"))],
            Op::SortByLength => vec![block(
                format!("sort.Slice({a}, func(i, j int) bool {{"),
                vec![
                    block(
                        format!("if len({a}[i]) != len({a}[j]) {{"),
                        vec![line(format!("return len({a}[i]) < len({a}[j])"))],
                        "}",
                    ),
                    line(format!("return {a}[i] < {a}[j]")),
                ],
                "})",
            )],
            Op::Drop(k) => vec![
                block(format!("if len({a}) > {k} {{"), vec![line(format!("{a} = {a}[{k}:]"))], ""),
                block("} else {", vec![line(format!("{a} = nil"))], "}"),
            ],
            Op::Last(k) => {
                vec![block(
                    format!("if len({a}) > {k} {{"),
                    vec![line(format!("{a} = {a}[len({a})-{k}:]"))],
                    "}",
                )]
            }
            Op::EveryOther => vec![
                line(self.new_list(kind, "half")),
                block(
                    format!("for i := 0; i < len({a}); i += 2 {{"),
                    vec![line(self.push("half", &format!("{a}[i]")))],
                    "}",
                ),
                line(format!("{a} = half")),
            ],
            Op::PrefixSums => vec![block(
                format!("for i := 1; i < len({a}); i++ {{"),
                vec![line(format!("{a}[i] += {a}[i-1]"))],
                "}",
            )],
            Op::Differences => vec![
                line(self.new_list(kind, "diff")),
                block(
                    format!("for i := 1; i < len({a}); i++ {{"),
                    vec![line(self.push("diff", &format!("{a}[i]-{a}[i-1]")))],
                    "}",
                ),
                line(format!("{a} = diff")),
            ],
            Op::Take(k) => {
                vec![block(format!("if len({a}) > {k} {{"), vec![line(format!("{a} = {a}[:{k}]"))], "}")]
            }
            Op::Dedup => vec![
                line(format!("seen := map[{}]bool{{}}", type_of(kind))),
                line(self.new_list(kind, "u")),
                block(
                    self.list_loop(kind, a, x),
                    vec![block(
                        format!("if !seen[{x}] {{"),
                        vec![line(format!("seen[{x}] = true")), line(self.push("u", x))],
                        "}",
                    )],
                    "}",
                ),
                line(format!("{a} = u")),
            ],
            _ => vec![],
        }
    }

    /// Never called: there is no style of steps.
    fn element_ops(&self, _: &[Op], _: Kind, _: &str, _: &Names, _: &mut Stream) -> Vec<Code> {
        Vec::new()
    }

    fn value(&self, sink: Sink, _: Kind, list: &str, _: &mut Stream) -> Option<String> {
        match sink {
            Sink::Count => Some(format!("len({list})")),
            Sink::First => Some(format!("{list}[0]")),
            Sink::Final => Some(format!("{list}[len({list})-1]")),
            _ => None,
        }
    }

    fn fold(&self, sink: Sink, kind: Kind, list: &str, names: &Names) -> Vec<Code> {
        let (x, best) = (names.element, names.value);
        let less = |p: &str, q: &str, name: &str| {
            block(format!("if {p} < {q} {{"), vec![line(format!("{name} = {x}"))], "}")
        };
        match sink {
            Sink::Spread => {
                return vec![
                    line(format!("low, high := {list}[0], {list}[0]")),
                    block(
                        self.list_loop(kind, list, x),
                        vec![less(x, "low", "low"), less("high", x, "high")],
                        "}",
                    ),
                    line(format!("{best} := high - low")),
                ];
            }
            Sink::Distinct => {
                return vec![
                    line(format!("known := map[{}]bool{{}}", type_of(kind))),
                    block(self.list_loop(kind, list, x), vec![line(format!("known[{x}] = true"))], "}"),
                    line(format!("{best} := len(known)")),
                ];
            }
            _ => {}
        }
        let sign = if sink == Sink::Max { ">" } else { "<" };
        vec![
            line(format!("{best} := {list}[0]")),
            block(
                self.list_loop(Kind::Int, list, x),
                vec![block(format!("if {x} {sign} {best} {{"), vec![line(format!("{best} = {x}"))], "}")],
                "}",
            ),
        ]
    }

    fn show(&self, sink: Sink, kind: Kind, a: &str, names: &Names, _: &mut Stream) -> Vec<Code> {
        let x = names.element;
        match (sink, kind) {
            (Sink::Joined(' '), Kind::Int) => vec![
                block(self.list_loop(kind, a, x), vec![line(format!("fmt.Print({x}, \" \")"))], "}"),
                line("fmt.Println()"),
            ],
            (Sink::Joined(c), Kind::Word) => vec![line(format!("fmt.Println(strings.Join({a}, \"{c}\"))"))],
            (Sink::Joined(c), Kind::Int) => vec![
                block(
                    format!("for i, {x} := range {a} {{"),
                    vec![
                        block("if i > 0 {", vec![line(format!("fmt.Print(\"{c}\")"))], "}"),
                        line(format!("fmt.Print({x})")),
                    ],
                    "}",
                ),
                line("fmt.Println()"),
            ],
            _ => vec![block(self.list_loop(kind, a, x), vec![line(format!("fmt.Println({x})"))], "}")],
        }
    }

    fn print(&self, value: &str) -> String {
        format!("fmt.Println({value})")
    }

    fn wrap(&self, body: Vec<Code>) -> Vec<Code> {
        let text = render(&body, "");
        let imports: Vec<Code> = ["bufio", "fmt", "os", "sort", "strings"]
            .into_iter()
            .filter(|package| text.contains(&format!("{package}.")))
            .map(|package| line(format!("\"{package}\"")))
            .collect();
        let mut code = vec![line("package main\n\n"), block("import (", imports, ")\n\n")];
        if text.contains("reverse(") {
            code.push(block(
                "func reverse(s string) string {",
                vec![
                    line("b := []byte(s)"),
                    block(
                        "for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {",
                        vec![line("b[i], b[j] = b[j], b[i]")],
                        "}",
                    ),
                    line("return string(b)"),
                ],
                "}\n\n",
            ));
        }
        if text.contains("abs(") {
            code.push(block(
                "func abs(x int) int {",
                vec![block("if x < 0 {", vec![line("return -x")], "}"), line("return x")],
                "}\n\n",
            ));
        }
        if text.contains("digitSum(") {
            code.push(block(
                "func digitSum(n int) int {",
                vec![
                    line("s := 0"),
                    block("for ; n > 0; n /= 10 {", vec![line("s += n % 10")], "}"),
                    line("return s"),
                ],
                "}\n\n",
            ));
        }
        code.push(block("func main() {", body, "}"));
        code
    }
}

fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "int",
        Kind::Word => "string",
    }
}
