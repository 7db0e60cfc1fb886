//! The back channel: what the trainer asks the sampler for.

use serde::{Deserialize, Serialize};

/// Contents of `request.json`. Spec: `POLICY.md`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Optimizer step whose rollouts are wanted, from 1.
    pub step: u64,
    /// Newest published version: `step - 1` while the run goes on.
    pub version: u64,
    /// Prompts wanted for a step.
    pub groups: u64,
    /// Prompts consumed by the steps before `step`: the sampler's cursor into the order of prompts.
    pub prompts_done: u64,
    /// The run is over: no further step is wanted.
    #[serde(default)]
    pub done: bool,
    /// Number of the trainer's start in this directory, the same as in `trainer.lock`; set by the publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
}
