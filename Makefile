# The tasks of this project; `make` lists them. Each works alone in a fresh clone: it installs what it
# needs into .venv first. ARGS goes to the command behind the task: make serve ARGS="--config f.yaml".

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup dev serve test agents-test check check-fmt lint types fmt gen check-gen proto-lint \
	proto-breaking bench simulation lock clean
SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=
# The Python for .venv; default: the first of 3.13, 3.12, 3.11 and python3 that works.
PYTHON ?=
export PYTHON

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with all that the gateway needs (PYTHON=... chooses the Python)
	@scripts/setup.sh

dev: ## the same, with the tools for working on it
	@scripts/setup.sh dev

serve: setup ## run the gateway: ARGS="--config f.yaml"
	@exec $(BIN)/headgate serve $(ARGS)

test: dev ## run all tests, or some: ARGS="tests/unit -k fold"
	@exec $(BIN)/python -m pytest $(ARGS)

agents-test: dev ## run all agents in tests/agents, the large ones, too
	@exec env HEADGATE_ALL_AGENTS=1 $(BIN)/python -m pytest tests/agents $(ARGS)

check: check-fmt lint types proto-lint proto-breaking check-gen test ## all that CI checks

check-fmt: dev ## are Python and proto files formatted?
	$(BIN)/ruff format --check .
	$(BIN)/buf format --diff --exit-code

lint: dev ## lint the Python code
	$(BIN)/ruff check .

types: dev ## check the types (mypy, strict)
	$(BIN)/mypy

fmt: dev ## format everything, and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

gen: ## generate the stubs from proto/
	scripts/gen_protos.sh

check-gen: ## are the committed stubs what proto/ says?
	scripts/check_gen.sh

proto-lint: dev ## lint proto/
	$(BIN)/buf lint

proto-breaking: dev ## does proto/ break callers of the last tag, or of main?
	scripts/proto_breaking.sh

bench: dev ## measure CPU per request and per chunk: ARGS="--quick"
	@exec $(BIN)/python tests/bench/run.py $(ARGS)

simulation: dev ## simulate routing under trouble: ARGS="--write" renews docs/simulation.md
	@exec $(BIN)/python tests/bench/simulation/run.py $(ARGS)

lock: ## write the lock files anew: ARGS=--upgrade takes the newest versions
	scripts/lock.sh $(ARGS)

clean: ## remove .venv and everything else that these tasks made
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
