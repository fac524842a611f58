# `make help` lists the targets. Everything runs in .venv, which `make install` makes from a bare Python.
#   make install PYTHON=python3.12    the interpreter
#   make test ARGS="-k registry -x"   arguments for the command behind a target (demo, serve, test, bench, fuzz, lock)
#   make fuzz SEED=7                  other requests, other faults (fuzz, chaos)

BIN := .venv/bin
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --quiet --universal \
	--generate-hashes --no-emit-index-url --no-annotate

export PYTHON
.DEFAULT_GOAL := help
.PHONY: help install install-dev models demo serve test lint types bench fuzz soak chaos lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

install: ## Make .venv with the locked packages and the thresher command
	@sh tools/bootstrap.sh runtime

install-dev: ## The same, with what tests, linters and benchmarks need
	@sh tools/bootstrap.sh dev

models: install ## Fetch the model files into the cache and check them
	@$(BIN)/thresher models fetch

demo: models ## Answer questions about Thresher's own documentation in every mode
	@$(BIN)/thresher demo $(ARGS)

serve: models ## Start the HTTP service
	@$(BIN)/thresher serve $(ARGS)

# Without the model files the tests that need them say so, and all others still run. Two processes, each with whole
# files of tests, for most of them wait for servers; ARGS="-n 0" takes one, as a debugger needs.
test: install-dev ## Run all tests, with the real small model
	@$(BIN)/thresher models fetch --all || echo "make test: the tests that need the model files will fail" >&2
	@sh tools/programs.sh || echo "make test: the tests that need it are skipped, or fail where CI is set" >&2
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: install-dev ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install-dev ## Check types
	@$(BIN)/mypy

bench: install-dev ## Measure overhead, grading and ingest; prints a table
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: install-dev ## Send 10,000 made-up requests and more; SEED= makes up others
	@$(BIN)/python -m tests.fuzz --seed $(or $(SEED),1) $(ARGS)

soak: install-dev ## Send 100,000 requests and 10,000 jobs, and see that the memory stays flat; takes an hour
	@$(BIN)/python -m benchmarks soak $(ARGS)

chaos: install-dev ## Kill, freeze and cut off everything at random under load; SEED= chooses other faults
	@SEED=$(or $(SEED),1) $(BIN)/python -m benchmarks chaos $(ARGS)

lock: install-dev ## Write the lock files anew from pyproject.toml; ARGS=--upgrade takes newer versions
	@$(LOCK) --extra build --output-file requirements.lock $(ARGS)
	@$(LOCK) --extra build --extra dev --constraint requirements.lock --output-file requirements-dev.lock $(ARGS)

clean: ## Remove the environment and what the tools leave; the model cache stays
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
