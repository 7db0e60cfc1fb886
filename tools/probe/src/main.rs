//! Probes the latent space of a model
fn main() {}
