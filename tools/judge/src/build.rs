//! Puts a program into a sandbox and compiles it there.

use cognate_languages::Language;

use crate::java;
use crate::sandbox::wire::{Exceeded, Kind, Run, RunLimits};
use crate::sandbox::{Fault, Finished, Sandbox};
use crate::toolchain::{Names, Toolchains};

/// What to build.
pub struct Order<'a> {
    pub language: &'a Language,
    pub source: &'a str,
    /// Files beside the program.
    pub beside: Vec<(&'a str, &'a [u8])>,
    /// One of them, run in the program's place.
    pub main: Option<(&'a str, &'a str)>,
    /// What the program may use, for runtimes that want to be told.
    pub memory_bytes: u64,
    pub compile: RunLimits,
    /// Whether tests may be forked from a waiting interpreter.
    pub forks: bool,
}

/// A program that can be run.
pub struct Ready {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    /// Name of the fork server.
    pub server: Option<String>,
    pub compiled: Option<Finished>,
}

pub enum Built {
    Ready(Ready),
    /// The compiler's end.
    Refused(Finished),
}

/// # Errors
/// When the sandbox fails.
pub fn build(
    tools: &Toolchains,
    sandbox: &mut dyn Sandbox,
    order: &Order<'_>,
    note: &dyn Fn(String),
) -> Result<Built, Fault> {
    let language = order.language;
    let named_after_class = language.source.contains("{class}");
    let of = |text: &str| if named_after_class { java::names(text) } else { Default::default() };
    let (file, mut class) = of(order.source);
    let own_name = language.source.replace("{class}", &file);
    let mut run_name = own_name.as_str();
    let mut files = vec![(own_name.as_str(), order.source.as_bytes())];
    files.extend(order.beside.iter().copied().filter(|(name, _)| *name != own_name));
    if let Some((name, code)) = order.main {
        files.push((name, code.as_bytes()));
        class = of(code).1;
        run_name = name;
    }
    let mut names =
        Names { source: run_name, class: &class, memory_mb: order.memory_bytes >> 20, lean: false };
    let arguments = tools.command(&language.run, language, &names);
    let environment = tools.environment(language);
    // A fork server waits for the program under its own name.
    let server = tools.server(language).filter(|_| order.forks && order.main.is_none());
    if language.compile.is_some()
        && let Some(words) = tools.prepare(language, sandbox)?
    {
        names.lean = words.allow_lean(&files);
    }
    let refusal = sandbox.place(&files, server.as_ref())?;
    if let Some(reason) = &refusal {
        note(format!("{}: no fork server, each test starts anew: {reason}", language.name));
    }
    let server = server.filter(|_| refusal.is_none()).map(|s| s.name);
    let Some(compile) = &language.compile else {
        return Ok(Built::Ready(Ready { arguments, environment, server, compiled: None }));
    };
    let mut compile = |names: &Names<'_>| {
        let run = Run {
            arguments: tools.command(compile, language, names),
            environment: environment.clone(),
            limits: order.compile,
            kind: Kind::Compile,
            server: None,
        };
        sandbox.run(&run, b"")
    };
    let is_compiled = |f: &Finished| f.outcome.exit == Some(0) && f.outcome.exceeded.is_none();
    let mut finished = compile(&names)?;
    if names.lean && !is_compiled(&finished) && finished.outcome.exceeded.is_none() {
        // The full header has the last word: that a name is mentioned in the lean one does not say that it is defined.
        names.lean = false;
        finished = compile(&names)?;
    }
    if is_compiled(&finished) {
        return Ok(Built::Ready(Ready { arguments, environment, server, compiled: Some(finished) }));
    }
    Ok(Built::Refused(finished))
}

/// Why the compiler refused, in words.
pub fn complaint(finished: &Finished) -> String {
    let what = match (finished.outcome.exceeded, finished.outcome.signal) {
        (Some(Exceeded::Cpu | Exceeded::Wall), _) => "the compiler ran out of time",
        (Some(Exceeded::Memory), _) => "the compiler ran out of memory",
        (Some(Exceeded::Output), _) => "the compiler wrote too much",
        (None, Some(_)) => "the compiler was ended by a signal",
        (None, None) => "",
    };
    if !what.is_empty() {
        return what.into();
    }
    let text = if finished.stderr.is_empty() { &finished.stdout } else { &finished.stderr };
    excerpt(text)
}

/// Longest excerpt and message, in bytes.
const EXCERPT: usize = 1000;

/// The beginning, as valid UTF-8.
pub fn excerpt(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]).into_owned();
    if bytes.len() > EXCERPT {
        text.push('…');
    }
    text
}
