//! The command on a tiny random model.

mod follow;
mod inputs;
mod sampling;
mod world;
