//! The policy directory: how trainer and sampler of one RL run meet.
//!
//! ```text
//! policy/0, policy/1, …     immutable Hugging Face directories, one per version (version = optimizer steps done)
//! policy/current            symlink to the newest, swapped by rename
//! policy/request.json       what the trainer waits for, replaced by rename
//! policy/run                which run the versions belong to
//! policy/trainer.lock       locked (flock) while the trainer lives; holds its session number
//! ```
//!
//! [`Publisher`] is the trainer's side and the only writer; [`Follower`] is the sampler's. `POLICY.md` beside this
//! crate is the specification, for trainers and samplers that are not part of this suite.

mod directory;
mod error;
mod follow;
mod publish;
mod request;

pub use directory::PolicyDir;
pub use error::{PolicyError, Result};
pub use follow::{Follower, Next, Version};
pub use publish::Publisher;
pub use request::Request;
