# `make` alone lists what can be made. Each target does the set-up it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RELEASE := $(VENV)/.release
# A file's tests stay together, for the sake of what it prepares once; in their order, which has the quick ones last.
# Three processes, since many tests wait for Kafka's timeouts.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(READY) ## A plant of machines, a worker and late labels, for about a minute
	$(BIN)/stream-ad demo

.PHONY: test
test: $(READY) ## All tests; a real Apache Kafka is fetched and started (needs Java 17 and Maven)
	$(PYTEST)

.PHONY: test-librdkafka
test-librdkafka: $(READY) ## Those tests over librdkafka that `make test` runs over kafka-python alone, the faults among them
	$(PYTEST) tests/kafka tests/faults --kafka-client librdkafka

.PHONY: test-public
test-public: $(READY) ## The same over kafka-python's public interface alone
	$(PYTEST) tests/kafka tests/faults --kafka-client kafka-python-public

.PHONY: check
check: $(READY) ## Lint, format, types, which module may import which, spelling, names, docstrings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/python -m tools.check_docstrings
	$(BIN)/python -m tools.check_names

.PHONY: hooks
hooks: $(READY) ## Check each commit before it is made (pre-commit, with the tools of .venv)
	$(BIN)/pre-commit install

.PHONY: format
format: $(READY) ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs
docs: $(READY) ## Write the generated parts of docs/ again
	$(BIN)/python -m tools.write_docs

.PHONY: docs-site
docs-site: $(READY) ## The documentation as a site, in site/; needs no network
	$(BIN)/python -m mkdocs build --strict

.PHONY: layers
layers: $(READY) ## Print which package imports which, by layer
	@$(BIN)/python -m tools.import_layers

.PHONY: pictures
pictures: $(READY) ## Draw the pictures of the documentation from what runs today; needs Chromium (`make chromium`)
	$(BIN)/python -m tools.write_pictures

.PHONY: schemas
schemas: $(READY) ## Write the JSON Schemas of the messages to schemas/v1
	$(BIN)/python -m tools.write_schemas

.PHONY: bench
bench: $(READY) ## Detector, pipeline and latency beside other libraries, as tables; with Quix Streams: BENCH="--quix PYTHON"
	$(BIN)/python benchmarks/detector.py --parts --write
	$(BIN)/python benchmarks/pipeline.py --write $(BENCH)
	$(BIN)/python benchmarks/live.py --write $(BENCH)

.PHONY: bench-long
bench-long: $(READY) ## How speed changes with sensors, features, steps, labels and workers: a table, and docs/explanation/growth.svg
	$(BIN)/python benchmarks/growth.py --kafka --write

.PHONY: profile
profile: $(READY) ## Where an event's time goes, on both brokers: a table, and flame graphs in profile/
	$(BIN)/python benchmarks/profiling.py

.PHONY: soak
soak: $(READY) ## The long form of the fault tests: an hour, or less with SOAK="--events 50000 --kills 20 --broker-faults 10"
	$(BIN)/python -m tests.faults.soak --write $(SOAK)

.PHONY: quality
quality: $(READY) ## Detection quality beside its goals, written to docs/explanation/quality.md; name the recordings with TEST_DATA=FOLDER
	$(BIN)/python benchmarks/quality.py $(TEST_DATA)

.PHONY: wheel
wheel: $(RELEASE) ## Wheel and source distribution, in dist/
	$(BIN)/python -m build --no-isolation

.PHONY: audit
audit: build/requirements.txt ## Known vulnerabilities of what is shipped; asks a vulnerability service: AUDIT="-s osv" names another
	$(BIN)/pip-audit --no-deps --disable-pip -r $< $(AUDIT)

.PHONY: sbom
sbom: build/requirements.txt ## A list of what is shipped, in dist/sbom.json (CycloneDX); needs no network
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json $<

build/requirements.txt: $(RELEASE)
	mkdir -p build
	$(BIN)/python -m tools.write_requirements >$@

.PHONY: setup
setup: $(READY) ## Only the virtual environment, in .venv

.PHONY: clean
clean: ## Remove the virtual environment, caches and build outputs
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist site *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made once, and again when the requirements change.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { python=$$($(FIND_PYTHON)) && "$$python" -m venv $(VENV); } || { echo "$$NO_PYTHON" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# The tools of a release, beside the others and once as well; installing is what needs the network.
$(RELEASE): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[release]'
	@touch $@

# The name alone says little: a wrapper may stand there that starts nothing.
FIND_PYTHON = for name in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	"$$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 \
	&& echo "$$name" && exit 0; done; exit 1

define NO_PYTHON
No usable Python found. stream-ad needs Python 3.11, 3.12 or 3.13 with its venv module (on Debian and Ubuntu:
apt install python3-venv). Name another interpreter with: make PYTHON=/path/to/python3.12 ...
endef
export NO_PYTHON

-include deploy/deploy.mk
