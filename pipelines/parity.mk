# Parity with transformers. The fixtures stand in the repository and the tests need no Python; these targets make them
# anew and check the other direction. The virtual environment takes 5 GB (PyPI's torch brings its CUDA libraries along;
# only the CPU is used) and a few minutes; another Python with the same packages: PARITY_PYTHON=...

PARITY_VENV ?= .venv/parity
PARITY_PYTHON ?= $(PARITY_VENV)/bin/python
PARITY_FIXTURES := shared/model/testdata/parity
# Further model directories for parity-verify, e.g. MODELS=runs/tiny/0/parallel/rl
MODELS ?=

.PHONY: parity-fixtures parity-verify

$(PARITY_VENV)/bin/python:
	python3 -m venv $(PARITY_VENV)
	$(PARITY_VENV)/bin/pip install --quiet torch==2.11.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 peft==0.21.2

parity-fixtures: $(PARITY_PYTHON) ## make the parity fixtures anew with transformers (the same bytes for the same versions)
	$(PARITY_PYTHON) pipelines/parity.py --write $(PARITY_FIXTURES)

parity-verify: $(PARITY_PYTHON) ## models written here load in transformers and give the same logits
	rm -rf runs/parity
	$(CARGO) build --release --locked --workspace --example logits
	target/release/examples/logits runs/parity $(PARITY_FIXTURES)/* $(MODELS)
	$(PARITY_PYTHON) pipelines/parity.py --verify runs/parity/*
