//! Requests and responses of SandboxFusion's interface, as its client of version 0.3.7 and verl send and read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

fn ten() -> f64 {
    10.0
}

fn no_limit() -> i64 {
    -1
}

#[derive(Debug, Deserialize)]
pub struct RunCode {
    pub code: String,
    pub language: String,
    #[serde(default)]
    pub stdin: Option<String>,
    /// Seconds.
    #[serde(default = "ten")]
    pub compile_timeout: f64,
    /// Seconds.
    #[serde(default = "ten")]
    pub run_timeout: f64,
    /// MiB; below 0 is the server's own limit.
    #[serde(default = "no_limit", rename = "memory_limit_MB")]
    pub memory_limit_mb: i64,
    /// Contents in base64; null is passed over.
    #[serde(default)]
    pub files: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub fetch_files: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RunStatus {
    Success,
    Failed,
    SandboxError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum CommandStatus {
    Finished,
    TimeLimitExceeded,
}

#[derive(Debug, Clone, Serialize)]
pub struct CommandResult {
    pub status: CommandStatus,
    /// Wall, seconds.
    pub execution_time: Option<f64>,
    /// Of all processes, seconds.
    pub cpu_time: Option<f64>,
    /// Below 0 for a signal.
    pub return_code: Option<i32>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RunCodeResult {
    pub status: RunStatus,
    pub message: String,
    pub compile_result: Option<CommandResult>,
    pub run_result: Option<CommandResult>,
    pub executor_pod_name: Option<String>,
    /// Contents in base64.
    pub files: BTreeMap<String, String>,
}

impl RunCodeResult {
    pub fn fault(message: impl Into<String>) -> Self {
        Self {
            status: RunStatus::SandboxError,
            message: message.into(),
            compile_result: None,
            run_result: None,
            executor_pod_name: None,
            files: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct Submit {
    pub id: Value,
    pub completion: String,
    #[serde(default)]
    pub config: SubmitConfig,
}

#[derive(Debug, Default, Deserialize)]
pub struct SubmitConfig {
    #[serde(default)]
    pub language: Option<String>,
    #[serde(default)]
    pub compile_timeout: Option<f64>,
    #[serde(default)]
    pub run_timeout: Option<f64>,
    #[serde(default)]
    pub provided_data: Option<Value>,
}

/// A test of a `CommonOJDataset` row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StdioTest {
    pub input: BTreeMap<String, String>,
    pub output: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub struct Evaluated {
    pub passed: bool,
    pub exec_info: RunCodeResult,
    pub test_info: Option<Value>,
}

#[derive(Debug, Serialize)]
pub struct Evaluation {
    pub id: Value,
    pub accepted: bool,
    pub extracted_code: String,
    pub full_code: Option<String>,
    pub test_code: Option<String>,
    pub tests: Vec<Evaluated>,
    pub extracted_type: Option<&'static str>,
    pub extra: Option<Value>,
}
