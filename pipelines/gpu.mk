# The GPU's checks and measurements, each one command. `kernels/gpu.sh build` makes the binaries once; the folder
# $(GPU_BINARIES) and kernels/gpu.sh may then be carried to a machine that has a GPU and no Rust.

.PHONY: gpu-build gpu-check gpu-bench

gpu-build: ## the binaries of gpu-check and gpu-bench, into target/gpu, to be carried to a machine with a GPU
	kernels/gpu.sh build

gpu-check: gpu-build ## kernels, whole training steps and decode loops on this machine's GPU, against the CPU; exit 3 without one
	kernels/gpu.sh check

gpu-bench: gpu-build ## speed of kernels, training and decoding on this machine's GPU, PyTorch beside; exit 3 without one
	kernels/gpu.sh bench
