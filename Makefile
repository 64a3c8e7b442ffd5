# `make up` runs Segue, `make test` tests it. Both build .venv first.
PYTHON ?= $(shell for v in 3.13 3.12 3.11; do \
	if python$$v -c 'import venv, ensurepip' >/dev/null 2>&1; then echo python$$v; exit; fi; done; echo python3)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-compile
NOT_IMPORTED := /twilio/rest/|/phonenumbers/(carrier|geo|tz)data/|/(setuptools|mypyc?|apprise)/

.PHONY: up demo test prove check bench chaos docs lock clean clean-data
up: .venv/ready
	$(BIN)/segue up

demo: .venv/ready
	$(BIN)/segue demo

# Tests start many processes, each of which would compile all modules again.
test prove: export PYTHONDONTWRITEBYTECODE =

# Each process takes 8 s of CPU time before its first test; six keep two cores busy.
test: check
	$(BIN)/python -m pytest -n 6 --dist loadgroup -rs

# Only the tests with generated cases, with many more cases each: tests/support/proof.py
prove: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "hypothesis or proof" --hypothesis-profile=prove

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

bench: .venv/ready
	$(BIN)/python -m benchmarks

# Kills processes repeatedly under load: make chaos SECONDS=120 SEED=1 DB=postgresql
chaos: SECONDS ?= 600
chaos: SEED ?= 1
chaos: DB ?= sqlite
chaos: .venv/ready
	@$(BIN)/python -m tests.chaos $(SECONDS) $(SEED) $(DB)

# The pages of docs/ as a site with search, in build/docs. Every link must lead somewhere, and no
# page may load anything from another host.
docs: .venv-docs/ready
	@if command -v npm >/dev/null; then \
		npm ci --prefix docs/site --ignore-scripts --no-audit --no-fund --silent; \
	else echo "Without npm, diagrams are shown as text."; fi
	.venv-docs/bin/sphinx-build -q -W --keep-going -c docs/site docs build/docs
	@! grep -rE '<(script|link|img)[^>]+(src|href)="(https?:)?//' build/docs --include='*.html'
	@echo "Open build/docs/index.html"

# Apart from .venv, which `make up` waits for.
.venv-docs/ready: docs/site/requirements.lock
	@$(PYTHON) -m venv --clear .venv-docs
	@.venv-docs/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
		--require-hashes -r docs/site/requirements.lock
	@touch .venv-docs/ready

# The lock file is complete; --no-deps keeps pip from choosing other versions. pip works on one core,
# so that two of them install half of the packages each, and pip itself when neither runs.
# compileall works on all cores; it leaves out what Segue does not import, a third of all, and files
# for other Python versions may fail.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	"Segue needs Python 3.11, 3.12 or 3.13; %s is %d.%d. Choose one: make PYTHON=python3.12 ..." % (sys.executable, *v))'
	@echo "Building .venv from requirements.lock; this takes about a minute."
	@$(PYTHON) -m venv --clear .venv
	@awk '/^[^ #]/ {part = /^pip==/ ? "pip" : "half" (n++ % 2)} {print > (".venv/" part ".txt")}' requirements.lock
	@$(INSTALL) --require-hashes -r .venv/half0.txt & first=$$!; \
		$(INSTALL) --require-hashes -r .venv/half1.txt; second=$$?; \
		wait $$first && exit $$second
	@$(INSTALL) --require-hashes -r .venv/pip.txt
	@$(BIN)/python -m compileall -qq -j 0 -x '$(NOT_IMPORTED)' .venv/lib || true
	@$(INSTALL) --no-build-isolation --no-index -e .
	@$(BIN)/python -m pip check --disable-pip-version-check
	@touch .venv/ready

# Uses the existing .venv, without rebuilding it from the lock file that this replaces.
lock:
	@test -x $(BIN)/uv || $(MAKE) .venv/ready
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements.lock
	$(BIN)/uv pip compile docs/site/requirements.in --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-annotate --no-header \
		-o docs/site/requirements.lock

# What can be built again. The data of the shop stays: `make clean-data` removes it.
clean:
	rm -rf .venv .venv-docs build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# .segue has the customers, messages and keys of `make up`.
clean-data:
	@if [ "$(CONFIRM)" != yes ]; then \
		if [ ! -t 0 ]; then echo "Nothing was removed. Without a terminal: make clean-data CONFIRM=yes" >&2; exit 1; fi; \
		printf "Remove .segue, with all customers and messages in it? Type yes: "; read answer; \
		if [ "$$answer" != yes ]; then echo "Nothing was removed." >&2; exit 1; fi; \
	fi
	rm -rf .segue
