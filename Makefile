# make demo: a story from the simulated hardware.  make test: all tests.  make uart: the serial line, bit by bit.  make setup: only what they need.
PROMPT   ?= Once upon a time
PYTHON3  ?= python3
export PROMPT    # the shell reads it, so quotes in it are harmless
VENV     := .venv
PYTHON   := $(VENV)/bin/python
HASH     := $(shell cat requirements.txt requirements-debian.txt pyproject.toml | sha256sum | cut -c1-16)
STAMP    := $(VENV)/installed-$(HASH)
MODEL    := models/stories.bin
PACKAGES := $(shell sed 's/\#.*//' requirements-debian.txt)

.PHONY: help setup sim demo serve test test-reference test-web server-load uart long-context resources timing bitstream docs clean

help:
	@head -1 Makefile | cut -c3-

# Setup --------------------------------------------------------------------------------------------

setup: $(STAMP)

$(STAMP):
	@command -v dpkg-query >/dev/null || { \
		echo "not a Debian system: install by hand what corresponds to: $(PACKAGES)" >&2; exit 0; }; \
	missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; \
	done; \
	test -z "$$missing" && exit 0; \
	if [ $$(id -u) = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else \
		echo "these Debian packages are missing and need root: apt-get install$$missing" >&2; exit 1; fi; \
	echo "installing$$missing"; \
	$$sudo apt-get -q update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $$missing
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install -q --disable-pip-version-check -r requirements.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check --no-deps -e .
	rm -f $(VENV)/installed-*
	touch $@

# Demo ---------------------------------------------------------------------------------------------

sim: setup
	@$(PYTHON) targets/sim.py --build

demo: sim
	@$(VENV)/bin/llama2-host generate --sim --model $(MODEL) --prompt "$$PROMPT"

# The page and OpenAI's interface on the simulated SoC; HTTP_PORT=N for another port than 8080.
HTTP_PORT ?= 8080
serve: sim
	@$(VENV)/bin/llama2-host serve --sim --model $(MODEL) --http-port $(HTTP_PORT) --open

# Tests --------------------------------------------------------------------------------------------

# The fast ones first; then those that run the simulator, which one of them builds.
test: setup
	@rm -f build/skips.txt
	$(PYTHON) -m pytest -q -n 2 -m "not soc and not uart and not reference and not web"
	$(PYTHON) -m pytest -q -n 2 --dist loadfile -m "soc and not reference"
	@echo "skipped tests, by reason:"; if [ -s build/skips.txt ]; then sed 's/^/  /' build/skips.txt; else echo "  none"; fi

# What needs reference data, a real checkpoint with its recorded ids: REFERENCE_DATA=FOLDER make test-reference.
test-reference: setup
	@test -n "$$REFERENCE_DATA" || { echo "REFERENCE_DATA is not set: name the folder that holds models/ and corpus/" >&2; exit 1; }
	$(PYTHON) -m pytest -q -n 2 --dist loadfile -m reference

# The page in Chromium, and several servers behind HAProxy; both are installed from Debian.
test-web: setup
	@missing=; for p in chromium chromium-driver haproxy; do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; \
	done; \
	test -z "$$missing" && exit 0; \
	if [ $$(id -u) = 0 ]; then sudo=; else sudo="sudo -n"; fi; \
	$$sudo apt-get -q update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $$missing
	$(PYTHON) -m pytest -q -m web

# 64 clients with 2,000 requests, a third of which leave midway; then 10,000 random requests: some minutes.
server-load: setup
	$(PYTHON) -m bench.server_load
	$(PYTHON) -m bench.server_fuzz

# Eight positions behind 16,392 others, on the simulated SoC, equal to golden; each K/V format: some minutes.
long-context: sim
	$(PYTHON) -m bench.long_context

# The UART bit by bit, with the whole core; `make test` does it with a stub.
uart: setup
	$(PYTHON) -m pytest -q -m uart

# FPGAs: none of these needs a board or a vendor's tool ---------------------------------------------

# Look-up tables, registers, memories and multipliers of each board's SoC, unit by unit: about five minutes.
resources: setup
	$(PYTHON) -m bench.resources

# The core alone on an ECP5-6, placed and routed: its clock and its ten worst paths: some ten minutes.
timing: setup
	$(PYTHON) -m bench.timing

# The whole SoC to an ECP5 bitstream; fails if the clock is missed: a quarter of an hour.
bitstream: setup
	$(PYTHON) -m bench.bitstream

# Documents ----------------------------------------------------------------------------------------

docs: setup
	$(PYTHON) -m spec.emit_docs
	$(PYTHON) -m bench.emit_docs

clean:
	rm -rf build *.egg-info .pytest_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
