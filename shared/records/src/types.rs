//! The record types. Each has its specification under `spec/`, which says what every field means; the comments here
//! say only what matters to code.

use serde::{Deserialize, Serialize};

use crate::Extra;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A task with tests. Spec: `spec/problem.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub id: String,
    pub statement: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Which part of the corpus it belongs to: base, sft, rl, dev, eval, or a name of the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checker: Option<Checker>,
    /// Ordered by size, smallest input first.
    #[serde(default)]
    pub tests: Vec<Test>,
    /// Subtasks with points; without them there is no score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ScoreGroup>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Limits of one run; absent ones fall back to the judge's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Largest file a program may write, and the bound on its private tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mb: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_kb: Option<u64>,
}

/// How an output is compared with the expected one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Checker {
    /// Byte for byte.
    Exact,
    /// Line by line, trailing blanks and trailing empty lines ignored.
    Lines,
    /// Split at ASCII white space.
    #[default]
    Tokens,
    /// As `tokens`, ASCII case ignored.
    TokensIgnoreCase,
    /// As `tokens`; two tokens that both parse as numbers are equal within either tolerance.
    Float {
        #[serde(default)]
        absolute: f64,
        #[serde(default)]
        relative: f64,
    },
    /// The same lines in any order.
    UnorderedLines,
    /// The same tokens in any order.
    UnorderedTokens,
    /// A program with testlib's arguments (input, output, answer) and exit codes; for an interactive test, the
    /// interactor.
    Program {
        language: String,
        source: String,
        /// Placed beside the source: headers.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<TestFile>,
    },
}

/// A file by name and contents. The name is plain: no folder, no leading dot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TestFile {
    pub name: String,
    pub content: String,
}

/// A subtask: its points are won by all of its tests or not at all; a checker's partial scores scale them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreGroup {
    pub name: String,
    pub points: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    Public,
    #[default]
    Hidden,
}

/// One test; which fields it has, its kind decides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Test {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default)]
    pub kind: TestKind,
    /// stdin (`stdio`, `files`); the interactor's input file (`interactive`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Expected stdout (`stdio`; `files` where stdout counts too); the interactor's answer file (`interactive`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Code appended to the program (`assert`); the program passes by exit status 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Name of a file for `code`, which is then run in the program's place and finds the program beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Put into the working folder before the run (`files`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<TestFile>,
    /// What the program must leave in the working folder (`files`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<TestFile>,
    /// The one language that this test is for (`assert`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(default)]
    pub visibility: Visibility,
    /// Name of the group (subtask) the test counts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Size of the input by the problem's own measure; tests are ordered by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checker: Option<Checker>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestKind {
    #[default]
    Stdio,
    Assert,
    Files,
    Interactive,
}

/// Where a record came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Path inside the corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// One source text for one problem. Spec: `spec/program.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    pub id: String,
    pub problem: String,
    /// Canonical name of the languages table.
    pub language: String,
    pub source: String,
    /// What the corpus says of it: `accepted`, `wrong`, or a spelling of the corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Parallel programs: the same function in several languages. Spec: `spec/group.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub id: String,
    pub problem: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Sorted by language, then id.
    pub members: Vec<Member>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Id of the program.
    pub id: String,
    pub language: String,
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Why it is in the group.
    pub evidence: Evidence,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `verdict` (passed the problem's tests) or `claim` (the corpus says so).
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Tests passed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tests: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// Messages to train on. Spec: `spec/conversation.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub id: String,
    pub messages: Vec<Message>,
    /// `generation`, `verification`, or `text` (one message, loss on all of it).
    pub task: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// One training sequence of several documents. Spec: `spec/packed.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Packed {
    pub id: String,
    /// Token ids of all documents, one after another.
    pub ids: Vec<u32>,
    /// Loss weight of each token AS A TARGET; the first token of a document is never a target and has 0.
    pub weights: Vec<f32>,
    /// Index in `ids` where each document starts; the first is 0.
    pub starts: Vec<u32>,
    /// Ids of the documents, as many as starts.
    #[serde(default)]
    pub documents: Vec<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a sampler is asked. Spec: `spec/prompt.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    pub id: String,
    pub problem: String,
    /// The asked language.
    pub language: String,
    /// `generation` or `verification`.
    pub task: String,
    #[serde(default)]
    pub messages: Vec<Message>,
    /// The rendered prompt.
    #[serde(default)]
    pub text: String,
    /// Its token ids under the model's tokenizer; a sampler makes them from the messages where there are none.
    #[serde(default)]
    pub ids: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Token ids that end an answer, beside the model's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_ids: Vec<u32>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a rollout was sampled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SamplingParameters {
    /// 0 means greedy.
    pub temperature: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    pub max_tokens: u32,
    pub seed: u64,
}

/// One answer to a prompt. Spec: `spec/rollout.md`. Only `prompt`, `index` and `text` are required.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Id of the prompt.
    pub prompt: String,
    /// Which of the samples of this prompt, from 0.
    pub index: u32,
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Optimizer step this rollout is for; part of the randomness key (seed, round, prompt, index).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt_ids: Vec<u32>,
    /// Sampled token ids, the end token included if one was sampled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u32>,
    /// Natural-log probability of each sampled token under the model at temperature 1, whole vocabulary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<f32>,
    /// The same under the distribution that was sampled from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sampling_logprobs: Vec<f32>,
    /// Policy version that produced each token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<SamplingParameters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// Label of what sampled it (an arm, a stage), for tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end token was sampled.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
}

/// The one verdict enumeration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// Accepted.
    AC,
    /// Wrong answer.
    WA,
    /// Presentation error (only where asked for).
    PE,
    /// Time limit exceeded.
    TLE,
    /// Memory limit exceeded.
    MLE,
    /// Output limit exceeded.
    OLE,
    /// Runtime error.
    RE,
    /// Compilation error, or no program found in the answer.
    CE,
    /// The judge's own fault; never the program's.
    IE,
}

/// What the judge says. Spec: `spec/verdict.md`. Everything outside `measured` is a pure function of the program and
/// its tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The first failing test's status in test order, or AC.
    pub status: Status,
    /// 1 for AC, else 0, unless the judge was asked for another reward; absent for IE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<f32>,
    /// Points won, where the problem has groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What kind of failure it is; absent for AC and IE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    pub passed: u32,
    /// Tests that were run.
    pub run: u32,
    /// Tests that there are.
    pub total: u32,
    /// In test order, as many as were run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<TestVerdict>,
    /// The rule by which code was found in an answer: `fence`, `whole`, `tags`, `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extraction: Option<String>,
    /// What the judge says about it: compiler messages, the reason of an IE. Bounded, valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Language that the code is in by its own syntax, where the judge was asked to tell (`--drift`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_language: Option<String>,
    /// Times and memory. Never part of a reward or a comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// Why a program is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Some answer is wrong, or there is none.
    Correctness,
    /// Every test that ended within its limits is right; time or memory ran out in others.
    Optimisation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestVerdict {
    pub status: Status,
    /// Share of the test that a checker gave, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Exit status, if the program exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Signal, if one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Excerpts, bounded, lossily decoded; only where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

/// What was measured, over all tests; per test in `tests` as [cpu_ms, wall_ms, memory_kb].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub cpu_ms: f64,
    pub wall_ms: f64,
    pub memory_kb: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile_cpu_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<[f64; 3]>,
}

/// A verdict as a record of its own (verdicts apart from what was judged). Spec: `spec/verdict.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// Id of the program, or `PROMPT#INDEX` of the rollout.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    pub verdict: Verdict,
    #[serde(flatten)]
    pub extra: Extra,
}

/// A vector read from a model. Spec: `spec/embedding.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Id of the program.
    pub id: String,
    pub problem: String,
    pub language: String,
    /// 0 is the embedding layer, l the output of block l.
    pub layer: u32,
    /// `mean` over the program's tokens or `last`.
    pub pooling: String,
    pub vector: Vec<f32>,
    /// Label of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// One measured number with what it belongs to. Spec: `spec/metric.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What is measured: `loss`, `pass@1`, `retrieval@1`.
    pub name: String,
    pub value: f64,
    /// What it belongs to: arm, stage, language, layer, step, seed; sorted by key.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Optimizer step, for series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Lower and upper end of the interval, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// How many things the value is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Ends the rollouts of one optimizer step in the RL pipe. Spec: `spec/step_end.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepEnd {
    pub step: u64,
    /// Policy version that the step's rollouts were sampled from (the oldest).
    pub version: u64,
    /// Prompts of the step.
    pub groups: u64,
    pub rollouts: u64,
    #[serde(flatten)]
    pub extra: Extra,
}
