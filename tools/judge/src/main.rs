//! Judges programs and rollouts in sandboxes: the reward function of the suite.

use std::process::ExitCode;

fn main() -> ExitCode {
    cog_judge::main(cog_judge::Protections::ALL)
}
