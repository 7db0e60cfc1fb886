//! The ops of training, sampling and probing: CPU implementations and CUDA kernels
