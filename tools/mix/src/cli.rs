//! The flags; their comments become --help, the man page and completions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds what models are trained on and asked: tokenizers, base corpora, SFT arms at equal budgets, prompts.
#[derive(Debug, Parser)]
#[command(name = "cog-mix", version, before_help = EXAMPLES, after_help = NEXT)]
pub struct Cli {
    #[command(flatten)]
    pub common: cognate_cli::Common,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  cog-mix tokenizer programs.parquet --problems problems.jsonl --vocab 1024 -o tok
  cog-mix base programs.parquet --problems problems.jsonl --tokenizer tok --tokens 9000 -o b.parquet
  cog-mix sft --groups groups.parquet --problems problems.jsonl --tokenizer tok --tokens 9000 -o mix
  cog-mix prompts --problems problems.jsonl --languages python --tokenizer tok -o prompts.jsonl";

const NEXT: &str = "The usual next tools: cog-train lm|sft for packed files, cog-sample for prompts.";

/// Words of code: a name with one character before it (`.map`, ` print`, `(x`), one digit, a run of punctuation with
/// the line end and the indentation after it (`:` + newline + four blanks), a line end with its indentation, white
/// space. Merges stay within words, so a name is the same tokens wherever it stands. Measured on 225 programs a
/// language, tokens a program in Python, Ruby, Lua: 38.4, 30.1, 61.5; without the line ends 42.2, 32.2, 65.8; names
/// without the character before them and without line ends 44.6, 35.5, 72.3.
const WORDS: &str =
    r"[^\s\w]?[A-Za-z_]+| [A-Za-z_]+|\d| ?[^\s\w]+(?:\r?\n[ \t]*)?|(?:\r?\n)+[ \t]*|[ \t]+|\w+|\s+";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a byte-level BPE tokenizer and write it as a Hugging Face directory.
    Tokenizer(Tokenizer),
    /// Build and pack language-model documents from programs and statements.
    Base(Base),
    /// Build the arms of an SFT experiment, one packed file an arm, at equal budgets.
    Sft(Sft),
    /// Write prompts with their text and token ids.
    Prompts(Prompts),
}

/// What the corpus is and which parts of it may be used.
#[derive(Debug, Args)]
#[command(next_help_heading = "Corpus")]
pub struct Corpus {
    /// Problems (problem/1), for statements and splits.
    #[arg(long, value_name = "FILE", required = true, value_delimiter = ',')]
    pub problems: Vec<PathBuf>,
    /// Splits that must never be trained on. What stands in one of them, or has the very text of something that does,
    /// is left out; asking for one is an error.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "rl,dev,eval")]
    pub forbid: Vec<String>,
    /// Table of languages to merge over the built-in one.
    #[arg(long, value_name = "FILE")]
    pub languages_table: Option<PathBuf>,
}

/// How a problem is put into words.
#[derive(Debug, Args)]
#[command(next_help_heading = "Format")]
pub struct Format {
    /// `comment` (the language's name, then the statement as a comment), `instruct` (a plain request for a fenced
    /// program), or a file with a minijinja template of the user message; it sees statement, language, display,
    /// extension, comment (the statement as a comment), task, program.
    #[arg(long, value_name = "NAME|FILE", default_value = "comment")]
    pub format: String,
    /// How a program stands in an answer where --format names a file.
    #[arg(long, value_name = "HOW", default_value = "whole")]
    pub answer: AnswerStyle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerStyle {
    /// The program and nothing else.
    Whole,
    /// In a fenced block that names the language.
    Fence,
}

#[derive(Debug, Args)]
pub struct Tokenizer {
    /// Programs (program/1); only accepted ones are read.
    #[arg(required = true)]
    pub programs: Vec<PathBuf>,
    #[command(flatten)]
    pub corpus: Corpus,
    /// Directory to write.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Splits to learn from; `none` is what has no split.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "base,sft")]
    pub splits: Vec<String>,
    /// Languages to learn from; all that occur if absent.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub languages: Vec<String>,
    /// Number of ids, special tokens and the 256 bytes included.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub vocab: usize,
    /// Least number of occurrences of a pair that is merged.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub min_frequency: u64,
    /// Regular expression of the words that merges stay within.
    #[arg(long, value_name = "REGEX", default_value = WORDS)]
    pub words: String,
}

#[derive(Debug, Args)]
pub struct Base {
    /// Programs (program/1); only accepted ones are used.
    #[arg(required = true)]
    pub programs: Vec<PathBuf>,
    #[command(flatten)]
    pub corpus: Corpus,
    #[command(flatten)]
    pub format: Format,
    /// Tokenizer directory.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    /// Packed file to write.
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Splits to use; `none` is what has no split.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "base")]
    pub splits: Vec<String>,
    /// Languages to use; all that occur if absent.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub languages: Vec<String>,
    /// Shares of languages in the tokens, relative to 1: `ruby=0.4,php=0.4`.
    #[arg(long, value_name = "LANG=X", value_delimiter = ',')]
    pub weights: Vec<String>,
    /// Shares of kinds of documents in the tokens: raw (the program), commented (under a part of its statement),
    /// statement (under its statement), describe (the program, then its statement).
    #[arg(long, value_name = "KIND=X", value_delimiter = ',', default_value = "raw=1,commented=1")]
    pub kinds: Vec<String>,
    /// Tokens to write.
    #[arg(long, value_name = "N")]
    pub tokens: u64,
    /// How often one program may be used in one kind of document.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub passes: u32,
    /// Probability with which each clause is dropped from a statement (kinds statement and describe); one always stays.
    #[arg(long, value_name = "P", default_value_t = 0.1)]
    pub drop_clause: f64,
    /// Probability with which each clause stays in a comment (kind commented); one always stays.
    #[arg(long, value_name = "P", default_value_t = 0.5)]
    pub keep_clause: f64,
    /// Write raw documents without the opening that names the language.
    #[arg(long)]
    pub no_header: bool,
    #[command(flatten)]
    pub packing: Packing,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Packing")]
pub struct Packing {
    /// Longest packed sequence, in tokens. A longer document is left out and counted.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub context: usize,
    /// How documents are put into sequences, after they were interleaved.
    #[arg(long, value_name = "HOW", default_value = "best-fit")]
    pub pack: PackMethod,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PackMethod {
    /// Into the fullest of the open sequences that still has room.
    BestFit,
    /// Into the one open sequence, in order.
    Sequential,
}

#[derive(Debug, Args)]
pub struct Sft {
    /// Groups of parallel programs (group/1).
    #[arg(long, value_name = "FILE", required = true, num_args = 1.., value_delimiter = ',')]
    pub groups: Vec<PathBuf>,
    /// Programs (program/1) with verdicts or claims, for verification and replay.
    #[arg(long, value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub programs: Vec<PathBuf>,
    #[command(flatten)]
    pub corpus: Corpus,
    #[command(flatten)]
    pub format: Format,
    /// Tokenizer directory.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    /// Directory to write: one packed file an arm, and manifest.json.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Splits to train on; `none` is what has no split.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "sft")]
    pub splits: Vec<String>,
    /// The one language of arms of kind `source`.
    #[arg(long, value_name = "NAME", default_value = "python")]
    pub source: String,
    /// Languages of arms of the other kinds, where an arm names none.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "python,javascript,perl,lua")]
    pub languages: Vec<String>,
    /// Answer tokens of generation in an arm. The parallel arm comes as near to it as whole groups allow; the others
    /// then have exactly as many.
    #[arg(long, value_name = "N")]
    pub tokens: u64,
    /// Verification documents for each generation document of the parallel arm; 0 for none.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub verification: f64,
    /// Replayed tokens of base data for each answer token; 0 for none. Every arm with the same replay languages gets
    /// the same documents.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub replay: f64,
    /// Languages of the replay, where an arm names none; those of --languages if absent.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub replay_languages: Vec<String>,
    /// Splits that replay is drawn from.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "base")]
    pub replay_splits: Vec<String>,
    /// Kinds of replayed documents, as in `cog-mix base --kinds`.
    #[arg(long, value_name = "KIND=X", value_delimiter = ',', default_value = "statement=1")]
    pub replay_kinds: Vec<String>,
    /// Most programs of one language for one problem in one arm.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub per_problem: usize,
    /// One conversation for each member of a group, or one with all of its languages turn by turn.
    #[arg(long, value_name = "HOW", default_value = "members")]
    pub parallel_format: ParallelFormat,
    /// Use members of groups that rest on the corpus's claim alone, not on a verdict.
    #[arg(long)]
    pub accept_claims: bool,
    /// Largest relative difference of an arm's answer tokens from what it must have, in all and in each language;
    /// two tokens a language are always allowed, since documents come whole.
    #[arg(long, value_name = "X", default_value_t = 0.005)]
    pub tolerance: f64,
    /// Longest packed sequence, in tokens. A longer document is left out and counted.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub context: usize,
    /// Sequences of an optimizer step. The number of sequences of an arm is a multiple of it.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ParallelFormat {
    Members,
    Joint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Statement to program.
    Generation,
    /// Statement and program to yes or no.
    Verification,
}

#[derive(Debug, Args)]
pub struct Prompts {
    /// Problems (problem/1).
    #[arg(long, value_name = "FILE", required = true, num_args = 1.., value_delimiter = ',')]
    pub problems: Vec<PathBuf>,
    /// Programs (program/1) to verify, for the task verification.
    #[arg(long, value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub programs: Vec<PathBuf>,
    /// Split to take problems from; all if absent, `none` is what has no split.
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Languages to ask for.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    pub languages: Vec<String>,
    /// Tasks to ask.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "generation")]
    pub task: Vec<Task>,
    /// Ask at most so many problems, drawn by the seed.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Leave out prompts of more tokens, and count them.
    #[arg(long, value_name = "N")]
    pub max_prompt: Option<usize>,
    /// Table of languages to merge over the built-in one.
    #[arg(long, value_name = "FILE")]
    pub languages_table: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
    /// Tokenizer directory.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: PathBuf,
    /// Prompts to write; `-` is stdout.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
}
