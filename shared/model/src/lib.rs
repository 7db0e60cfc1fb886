//! Llama as explicit forward and backward over the kernels
