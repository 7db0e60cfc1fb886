//! The policy directory: how trainer and sampler of one RL run meet
