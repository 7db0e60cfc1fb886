//! From a pipeline to programs: what all emitters share.
//!
//! Three styles. `Steps` is one statement an operation over a list that keeps its name; `Chain` is one expression
//! from the source to the sink; `Loop` fuses runs of element-wise operations into explicit loops, accumulating where
//! the sink allows. A language says how it writes the pieces; the order of the pieces is decided here, once.

mod code;
mod cpp;
mod go;
mod javascript;
mod lua;
mod perl;
mod php;
mod python;
mod ruby;

use cognate_random::{Key, Stream};

use crate::ir::{Form, Kind, Op, Pipeline, Scalar, Sink, Source};
use code::{Code, block, choose, line};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Steps,
    Chain,
    Loop,
}

impl Style {
    pub fn name(self) -> &'static str {
        match self {
            Style::Steps => "steps",
            Style::Chain => "chain",
            Style::Loop => "loop",
        }
    }
}

/// Names of a program's variables, without sigils.
#[derive(Debug, Clone)]
pub struct Names {
    pub list: &'static str,
    pub element: &'static str,
    /// Lists built by loops, one after another.
    pub outs: [&'static str; 3],
    /// Results of maps inside a loop, one after another.
    pub inner: [&'static str; 3],
    /// The one number that is printed.
    pub value: &'static str,
    /// The number that a range is read from.
    pub bound: &'static str,
}

impl Names {
    fn draw(source: Source, sink: Sink, stream: &mut Stream) -> Self {
        let (list, element): (&[&'static str], &[&'static str]) = match source.kind() {
            Kind::Int => (&["a", "nums", "xs", "values"], &["x", "v"]),
            Kind::Word => (&["words", "ws", "tokens"], &["w", "word"]),
        };
        let value: &[&'static str] =
            if sink == Sink::Count { &["count", "total"] } else { &["total", "result"] };
        let outs = *stream.choose(&[["out", "res", "b"], ["res", "out", "b"], ["b", "c", "d"]]);
        Self {
            list: choose(stream, list),
            element: choose(stream, element),
            outs,
            inner: *stream.choose(&[["y", "z", "t"], ["t", "y", "z"]]),
            value: if matches!(sink, Sink::Max | Sink::Min) { "best" } else { choose(stream, value) },
            bound: "n",
        }
    }
}

/// The beginning of a loop.
pub struct Head {
    pub before: Vec<Code>,
    pub open: String,
    /// First lines of the body: conversions of what was read.
    pub first: Vec<Code>,
}

impl Head {
    fn new(before: Vec<Code>, open: String) -> Self {
        Self { before, open, first: Vec::new() }
    }
}

/// How one language writes the pieces.
pub trait Emitter: Sync {
    /// Canonical name of the languages table.
    fn language(&self) -> &'static str;
    /// Styles with their weights.
    fn styles(&self) -> &'static [(Style, f64)];
    fn indent(&self) -> &'static str;
    /// A variable of one value.
    fn var(&self, name: &str) -> String {
        name.to_owned()
    }
    /// Condition on `x` under which a keeping operation keeps it.
    fn keep(&self, op: Op, x: &str, stream: &mut Stream) -> String;
    /// New value of `x`; an answer that starts with `!` is a statement that changes `x` in place.
    fn map(&self, op: Op, x: &str, stream: &mut Stream) -> String;
    fn open_if(&self, condition: &str) -> String;
    fn close(&self) -> &'static str;
    fn and(&self) -> &'static str {
        " && "
    }
    /// Names a new value of `kind`.
    fn bind(&self, kind: Kind, name: &str, value: &str) -> String;
    fn new_list(&self, kind: Kind, name: &str) -> String;
    fn push(&self, list: &str, value: &str) -> String;
    /// Reads the whole source into the list `names.list`.
    fn read_list(&self, source: Source, names: &Names, stream: &mut Stream) -> Vec<Code>;
    /// A loop over the source's elements that binds `names.element`.
    fn read_loop(&self, source: Source, names: &Names, stream: &mut Stream) -> Head;
    /// Opens a loop over a list.
    fn list_loop(&self, kind: Kind, list: &str, x: &str) -> String;
    /// Replaces the list by its image under a list operation.
    fn list_op(&self, op: Op, kind: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code>;
    /// Replaces the list by its image under a run of element-wise operations, one statement each or fused as is
    /// idiomatic. `kind` is the elements' before the run.
    fn element_ops(
        &self,
        ops: &[Op],
        kind: Kind,
        list: &str,
        names: &Names,
        stream: &mut Stream,
    ) -> Vec<Code>;
    /// The whole pipeline as one chain, where the language has such a style.
    fn chain(&self, _pipeline: &Pipeline, _names: &Names, _stream: &mut Stream) -> Option<Vec<Code>> {
        None
    }
    /// The one number of a scalar sink; `None` where it takes a loop.
    fn value(&self, sink: Sink, kind: Kind, list: &str, stream: &mut Stream) -> Option<String>;
    /// Prints a list.
    fn show(&self, sink: Sink, kind: Kind, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code>;
    fn print(&self, value: &str) -> String;
    fn add_to(&self, name: &str, value: &str) -> String {
        format!("{} += {value}", self.var(name))
    }
    /// Declares the program's number with a first value.
    fn bind_value(&self, name: &str, value: &str) -> String {
        self.bind(Kind::Int, name, value)
    }
    /// Binds the number of a scalar sink other than `Sum`, where it takes a loop.
    fn fold(&self, _sink: Sink, _kind: Kind, _list: &str, _names: &Names) -> Vec<Code> {
        Vec::new()
    }
    /// The file around the body: headers, helpers that the body uses, main function.
    fn wrap(&self, body: Vec<Code>) -> Vec<Code> {
        body
    }
}

/// All emitters, in the order in which programs are written.
pub static EMITTERS: [&dyn Emitter; 8] = [
    &python::Python,
    &javascript::JavaScript,
    &perl::Perl,
    &lua::Lua,
    &ruby::Ruby,
    &php::Php,
    &cpp::Cpp,
    &go::Go,
];

pub fn emitter(language: &str) -> Option<&'static dyn Emitter> {
    EMITTERS.into_iter().find(|e| e.language() == language)
}

/// A program text with the style it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    pub source: String,
    pub style: Style,
}

/// The program for `pipeline`; a pure function of its arguments.
pub fn emit(emitter: &dyn Emitter, pipeline: &Pipeline, key: Key) -> Emitted {
    let mut stream = key.with(emitter.language()).stream();
    let names = Names::draw(pipeline.source, pipeline.sink, &mut stream);
    let weights: Vec<f64> = emitter.styles().iter().map(|s| s.1).collect();
    let mut style = emitter.styles()[stream.weighted(&weights).unwrap_or(0)].0;
    let chained = (style == Style::Chain).then(|| emitter.chain(pipeline, &names, &mut stream)).flatten();
    let body = match chained {
        Some(body) => body,
        None if style == Style::Loop => loops(emitter, pipeline, &names, &mut stream),
        None => {
            style = Style::Steps;
            steps(emitter, pipeline, &names, &mut stream)
        }
    };
    Emitted { source: code::render(&emitter.wrap(body), emitter.indent()), style }
}

/// Runs of element-wise operations and single list operations, in order, each with the kind before it.
fn runs(pipeline: &Pipeline) -> Vec<(Kind, &[Op])> {
    let kinds = pipeline.kinds();
    let mut runs = Vec::new();
    let mut start = 0;
    for end in 1..=pipeline.ops.len() {
        let whole = |i: usize| pipeline.ops[i].form() == Form::List;
        if end == pipeline.ops.len() || whole(end - 1) || whole(end) {
            runs.push((kinds[start], &pipeline.ops[start..end]));
            start = end;
        }
    }
    runs
}

fn steps(e: &dyn Emitter, pipeline: &Pipeline, names: &Names, stream: &mut Stream) -> Vec<Code> {
    let mut code = e.read_list(pipeline.source, names, stream);
    for (kind, ops) in runs(pipeline) {
        code.extend(if ops[0].form() == Form::List {
            e.list_op(ops[0], kind, names.list, names, stream)
        } else {
            e.element_ops(ops, kind, names.list, names, stream)
        });
    }
    code.extend(finish(e, pipeline, names.list, names, stream));
    code
}

/// The sink over a list.
fn finish(e: &dyn Emitter, p: &Pipeline, list: &str, names: &Names, stream: &mut Stream) -> Vec<Code> {
    let kind = p.kinds()[p.ops.len()];
    if p.sink.is_list() {
        return e.show(p.sink, kind, list, names, stream);
    }
    match e.value(p.sink, kind, list, stream) {
        // A difference does not bind tightly enough for the scalar step.
        Some(value) if p.scalar.is_some() && (p.sink == Sink::Spread || stream.chance(0.4)) => vec![
            line(e.bind_value(names.value, &value)),
            line(e.print(&scalar(p.scalar, &e.var(names.value)))),
        ],
        Some(value) => vec![line(e.print(&scalar(p.scalar, &value)))],
        None if p.sink == Sink::Sum => {
            let tail = e.add_to(names.value, &e.var(names.element));
            vec![
                line(e.bind_value(names.value, "0")),
                block(e.list_loop(kind, list, names.element), vec![line(tail)], e.close()),
                line(e.print(&scalar(p.scalar, &e.var(names.value)))),
            ]
        }
        None => {
            let mut code = e.fold(p.sink, kind, list, names);
            code.push(line(e.print(&scalar(p.scalar, &e.var(names.value)))));
            code
        }
    }
}

/// The scalar step applied to a value that binds tightly.
pub fn scalar(step: Option<Scalar>, value: &str) -> String {
    match step {
        None => value.to_owned(),
        Some(Scalar::Plus(k)) => format!("{value} + {k}"),
        Some(Scalar::Minus(k)) => format!("{value} - {k}"),
        Some(Scalar::Times(k)) => format!("{value} * {k}"),
        Some(Scalar::Modulo(k)) => format!("{value} % {k}"),
    }
}

fn loops(e: &dyn Emitter, pipeline: &Pipeline, names: &Names, stream: &mut Stream) -> Vec<Code> {
    let mut code = Vec::new();
    let mut list: Option<&str> = None;
    let mut outs = names.outs.into_iter();
    let runs = runs(pipeline);
    let open = |list: Option<&str>, kind, code: &mut Vec<Code>, stream: &mut Stream| {
        let head = match list {
            Some(list) => Head::new(vec![], e.list_loop(kind, list, names.element)),
            None => e.read_loop(pipeline.source, names, stream),
        };
        code.extend(head.before);
        (head.open, head.first)
    };
    for (i, &(kind, ops)) in runs.iter().enumerate() {
        if ops[0].form() == Form::List {
            let name = *list.get_or_insert_with(|| {
                code.extend(e.read_list(pipeline.source, names, stream));
                names.list
            });
            code.extend(e.list_op(ops[0], kind, name, names, stream));
            continue;
        }
        if i + 1 == runs.len() && matches!(pipeline.sink, Sink::Sum | Sink::Count) {
            let (header, mut body) = open(list, kind, &mut code, stream);
            code.push(line(e.bind_value(names.value, "0")));
            let mut tail = |value: &str, _| {
                line(e.add_to(names.value, if pipeline.sink == Sink::Sum { value } else { "1" }))
            };
            body.extend(fused(e, ops, kind, &e.var(names.element), &names.inner, stream, &mut tail));
            code.push(block(header, body, e.close()));
            code.push(line(e.print(&scalar(pipeline.scalar, &e.var(names.value)))));
            return code;
        }
        let (header, mut body) = open(list, kind, &mut code, stream);
        let out = outs.next().unwrap_or("rest");
        let result = ops.iter().fold(kind, |kind, op| op.result(kind));
        code.push(line(e.new_list(result, out)));
        let mut tail = |value: &str, _| line(e.push(out, value));
        body.extend(fused(e, ops, kind, &e.var(names.element), &names.inner, stream, &mut tail));
        code.push(block(header, body, e.close()));
        list = Some(out);
    }
    code.extend(finish(e, pipeline, list.unwrap_or(names.list), names, stream));
    code
}

/// The body of a loop that applies `ops` to `x` and hands what remains to `tail`.
fn fused(
    e: &dyn Emitter,
    ops: &[Op],
    kind: Kind,
    x: &str,
    inner: &[&str],
    stream: &mut Stream,
    tail: &mut dyn FnMut(&str, Kind) -> Code,
) -> Vec<Code> {
    let Some((&op, rest)) = ops.split_first() else { return vec![tail(x, kind)] };
    if op.form() == Form::Keep {
        let count = ops.iter().take_while(|op| op.form() == Form::Keep).count();
        let conditions: Vec<String> = ops[..count].iter().map(|&op| e.keep(op, x, stream)).collect();
        let body = fused(e, &ops[count..], kind, x, inner, stream, tail);
        return vec![block(e.open_if(&conditions.join(e.and())), body, e.close())];
    }
    let value = e.map(op, x, stream);
    if let Some(statement) = value.strip_prefix('!') {
        let mut code = vec![line(statement)];
        code.extend(fused(e, rest, kind, x, inner, stream, tail));
        return code;
    }
    if rest.is_empty() {
        return vec![tail(&value, op.result(kind))];
    }
    let (name, others) = inner.split_first().map_or(("u", inner), |(name, others)| (*name, others));
    let mut code = vec![line(e.bind(op.result(kind), name, &value))];
    code.extend(fused(e, rest, op.result(kind), &e.var(name), others, stream, tail));
    code
}
