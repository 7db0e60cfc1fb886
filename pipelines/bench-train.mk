# Training speed side by side with PyTorch on the CPU, with the Python of pipelines/parity.mk (or any that has torch:
# PARITY_PYTHON=...). Times are measured: run it on a quiet machine.

.PHONY: bench-train

bench-train: $(PARITY_PYTHON) ## tokens/s of training steps, by turns with PyTorch eager and compiled
	$(CARGO) build --release --locked --workspace --example bench_train
	$(PARITY_PYTHON) pipelines/bench-train.py target/release/examples/bench_train
