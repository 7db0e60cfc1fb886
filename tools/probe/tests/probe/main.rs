//! The command on a tiny random model.

mod inputs;
mod vectors;
mod world;
