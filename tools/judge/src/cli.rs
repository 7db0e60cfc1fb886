//! The flags; their comments are the documentation.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cognate_cli::{Common, usage};
use cognate_records::Limits;

use crate::extract::Rule;
use crate::sandbox::kinds::Choice;

/// Judge programs and rollouts: run them in sandboxes against their problems' tests and add a verdict to each record.
///
/// Reads program/1 and rollout/1 lines (or any JSON objects with `problem`, `language` and `source` or `text`) and
/// writes the same lines, in the same order, with the field `verdict`. Lines of other schemas pass through. A finished
/// record is written at once, so that the judge can stand in a pipe between a sampler and a trainer.
#[derive(Debug, Parser)]
#[command(
    name = "cog-judge",
    version,
    args_conflicts_with_subcommands = true,
    before_help = "Examples:\n  cog-judge --tests problems.jsonl programs.jsonl -o judged.jsonl\n  \
                   cog-sample … | cog-judge --tests problems.jsonl --first-failure - | cog-train rl …\n  cog-judge languages\n  cog-judge doctor\n  cog-judge serve --listen 127.0.0.1:8080",
    after_help = "See also: cog-mine groups (makes parallel groups of accepted programs), cog-train rl, cog-score."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show which languages this machine can judge, with their versions, and how to get the others.
    Languages {
        /// Languages table (TOML) merged over the built-in one.
        #[arg(long, value_name = "FILE")]
        languages: Option<PathBuf>,
        /// Print only the names of the usable ones.
        #[arg(long)]
        names: bool,
        /// Look in this root folder of an OCI image instead of the host.
        #[arg(long, value_name = "DIR")]
        rootfs: Option<PathBuf>,
    },
    /// Remove what judges that were killed left behind: control groups and processes in them, launchers, containers of
    /// --sandbox oci, temporary files of the toolchain cache, sockets of `serve`. Every judge does so when it starts;
    /// nothing of a living one is touched.
    Clean {
        /// Only say what is there.
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Say what this machine gives to each kind of sandbox, what is weaker without the rest, and the exact command that mends
    /// it. Starts one of each and takes it down.
    ///
    /// Exit status 0 where a full sandbox stands (container or WebAssembly), 1 where none does.
    Doctor {
        /// Root folder of an OCI image that programs are to see.
        #[arg(long, value_name = "DIR")]
        rootfs: Option<PathBuf>,
    },
    /// Serve the HTTP interface of SandboxFusion, for its client and for trainers that speak to it, such as verl.
    ///
    /// POST /run_code and /submit, GET /v1/ping and /health. A request's run_timeout bounds the wall and the CPU time;
    /// there is no network for programs and nothing of a request is kept. Languages are named by any of their spellings.
    Serve(Box<Serve>),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen: HOST:PORT, or unix:PATH for a socket that only its owner may open. An address that other
    /// machines can reach needs a token.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Secret that requests must carry: `Authorization: Bearer TOKEN`, or as the password of http://:TOKEN@HOST. Other
    /// users can see a command line: prefer --token-file or the variable COGNATE_JUDGE_TOKEN.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File that holds the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Largest request, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub max_body_mb: u64,
    /// Longest compile_timeout and run_timeout that a request may ask for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub max_timeout: u64,
    /// Connections at a time; more wait. Programs at a time are -j.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub connections: usize,
    /// Problems (problem/1) that /submit may name by id, beside those that a request brings along; repeatable.
    #[arg(long, value_name = "FILE")]
    pub tests: Vec<PathBuf>,
    /// Languages table (TOML) merged over the built-in one.
    #[arg(long, value_name = "FILE")]
    pub languages: Option<PathBuf>,
    #[command(flatten)]
    pub limits: LimitFlags,
    #[command(flatten)]
    pub sandbox: SandboxFlags,
    /// Start the interpreter anew for every run instead of forking a waiting one.
    #[arg(long)]
    pub no_fork_server: bool,
}

impl Serve {
    /// The token, from wherever it is given; without one there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or the token is empty.
    pub fn token(&self) -> anyhow::Result<Option<String>> {
        let given = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => {
                Some(std::fs::read_to_string(path).map_err(|e| usage(format!("{}: {e}", path.display())))?)
            }
            (None, None) => std::env::var("COGNATE_JUDGE_TOKEN").ok(),
        };
        match given.map(|token| token.trim().to_owned()) {
            Some(token) if token.is_empty() => Err(usage("the token is empty")),
            token => Ok(token),
        }
    }
}

#[derive(Debug, Args)]
pub struct Filter {
    /// Records to judge: JSONL files, or Parquet files of programs or of rollouts; `-` is stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    pub input: Vec<PathBuf>,
    /// Problems with their tests (problem/1, JSONL or Parquet); repeatable. Indexed on disk, not loaded.
    #[arg(long, value_name = "FILE")]
    pub tests: Vec<PathBuf>,
    /// Where to write: JSONL, or Parquet by the name, where all records are programs or all are rollouts; `-` is stdout.
    /// A file appears whole or not at all.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Languages table (TOML) merged over the built-in one.
    #[arg(long, value_name = "FILE")]
    pub languages: Option<PathBuf>,
    /// Stop at a program's first failing test.
    #[arg(long)]
    pub first_failure: bool,
    /// Count only this share of each problem's tests, those with the smallest inputs (at least one).
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub coverage: f64,
    /// Tell wrong form (PE) from wrong content (WA): the right tokens with wrong white space, or a checker program's
    /// exit code 2.
    #[arg(long)]
    pub presentation: bool,
    /// Tell which language each program is in by its own syntax, in `verdict.detected_language`.
    #[arg(long)]
    pub drift: bool,
    /// Keep the beginning of each test's stdout and stderr in the verdict.
    #[arg(long)]
    pub excerpts: bool,
    /// Add measured times and memory in `verdict.measured`; without it equal inputs give equal bytes.
    #[arg(long)]
    pub measured: bool,
    #[command(flatten)]
    pub limits: LimitFlags,
    /// How the program is found in a model's answer: auto (the last Markdown fence in the asked language, else the
    /// whole text), fence, whole, tags (between `<code>` and `</code>`), tags:NAME. Specified in verdict.md.
    #[arg(long, value_name = "RULE", default_value = "auto")]
    pub extract: Rule,
    /// Write records as they are finished instead of in the order of the input.
    #[arg(long)]
    pub unordered: bool,
    /// Judge identical programs again instead of repeating the verdict within a run.
    #[arg(long)]
    pub no_result_cache: bool,
    /// Keep verdicts in this file (or results.jsonl in this folder) and reuse those on the same program, tests, limits,
    /// language table and toolchain. Measured times are then those of the first run.
    #[arg(long, value_name = "FILE|DIR")]
    pub result_cache: Option<PathBuf>,
    /// Go on where an interrupted run with the same -o FILE stopped: verdicts are kept beside it until it is whole.
    #[arg(long, conflicts_with = "result_cache")]
    pub resume: bool,
    #[command(flatten)]
    pub sandbox: SandboxFlags,
    /// Start the interpreter anew for every test instead of forking a waiting one.
    #[arg(long)]
    pub no_fork_server: bool,
}

/// Where programs run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub struct SandboxFlags {
    /// Kind of sandbox.
    #[arg(long = "sandbox", value_enum, value_name = "KIND", default_value_t)]
    pub kind: Choice,
    /// Root folder that programs see, read-only, instead of the host's folders: any OCI image unpacked by the usual tools, or
    /// a bundle made of one. Toolchains are looked for inside. For the container only.
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// The OCI runtime of --sandbox oci: a program with the command line of runc. The first of runc, crun and youki on PATH
    /// when absent.
    #[arg(long, value_name = "PATH")]
    pub oci_runtime: Option<PathBuf>,
}

/// Limits of one run, where neither the test nor the problem says otherwise. The languages table adds what the
/// toolchain itself needs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Default limits")]
pub struct LimitFlags {
    /// CPU time of all processes of a run, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    cpu_ms: u64,
    /// Wall time, in milliseconds; three times the CPU limit and a second when absent.
    #[arg(long, value_name = "MS")]
    wall_ms: Option<u64>,
    /// Memory, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory_mb: u64,
    /// Processes and threads.
    #[arg(long, value_name = "N", default_value_t = 32)]
    processes: u64,
    /// Largest file, and all of the private /tmp together, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    file_mb: u64,
    /// Output on stdout, and on stderr, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 16 * 1024)]
    output_kb: u64,
}

impl LimitFlags {
    pub fn limits(&self) -> Limits {
        Limits {
            cpu_ms: Some(self.cpu_ms),
            wall_ms: self.wall_ms,
            memory_mb: Some(self.memory_mb),
            processes: Some(self.processes),
            file_mb: Some(self.file_mb),
            output_kb: Some(self.output_kb),
        }
    }
}
