# `make help` lists the targets: what stands behind ## beside each, with how long it takes on two cores.
PROMPT   ?= Once upon a time
#: The first Python in the path that the hardware's packages run on; the client alone takes 3.10 to 3.13.
WANTED   := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON3  ?= $(or $(shell for p in python3 python3.12 python3.11; do $$p -c '$(WANTED)' 2>/dev/null && echo $$p && break; done),python3)
TEST     ?=
export PROMPT TEST    # the shell reads them, so quotes in them are harmless
VENV     := .venv
PYTHON   := $(VENV)/bin/python
HASH     := $(shell cat requirements.txt requirements-debian.txt pyproject.toml | sha256sum | cut -c1-16)
STAMP    := $(VENV)/installed-$(HASH)
MODEL    := models/stories.bin
PACKAGES := $(shell sed '/optional:/d; s/\#.*//' requirements-debian.txt)
OPTIONAL := $(shell sed -n 's/ *\# optional:.*//p' requirements-debian.txt)

.PHONY: help setup sim demo test test-fast wave test-install test-debian test-busy test-reference prove mutants faults fuzz-firmware coverage soak fuzz-core uart long-context resources timing bitstream serve test-web server-load lint format site docs clean

help:  ## this list
	@awk -F ' +## +' '/^[a-z-]+:.*## / { split($$1, name, ":"); printf "make %-14s %s\n", name[1], $$2 }' Makefile

# Setup --------------------------------------------------------------------------------------------

setup: $(STAMP)  ## install what the rest needs, into .venv and as Debian packages (1 min; PYTHON3=python3.11 chooses the Python)

# Installs the Debian packages of a list that are missing, where that may be done.
define debian
command -v dpkg-query >/dev/null || { \
		echo "not a Debian system: install by hand what corresponds to: $(1)" >&2; exit 0; }; \
	missing=; for p in $(1); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; \
	done; \
	test -z "$$missing" && exit 0; \
	if [ $$(id -u) = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else \
		echo "these Debian packages are missing and need root: apt-get install$$missing" >&2; exit 1; fi; \
	echo "installing$$missing"; \
	$$sudo apt-get -q update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $$missing
endef

$(STAMP):
	@$(PYTHON3) -c '$(WANTED)' 2>/dev/null || { \
		echo "make setup needs Python 3.11 or 3.12, and $(PYTHON3) is $$($(PYTHON3) --version 2>&1 | head -1): PYTHON3=python3.11 make setup" >&2; \
		echo "the client alone runs on 3.10 to 3.13: pip install ." >&2; exit 1; }
	@$(call debian,$(PACKAGES))
	@dpkg-query -W $(OPTIONAL) >/dev/null 2>&1 && exit 0; \
	if [ $$(id -u) = 0 ]; then sudo=; else sudo="sudo -n"; fi; \
	{ $$sudo apt-get -q update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $(OPTIONAL); } >/dev/null 2>&1 || \
		echo "without $(OPTIONAL) the simulator is compiled by g++: that takes longer, and it runs slower" >&2
	@echo "making $(VENV) with $$($(PYTHON3) --version)"
	@$(PYTHON) -c '$(WANTED)' 2>/dev/null || { rm -rf $(VENV); $(PYTHON3) -m venv $(VENV); }
	@echo "installing $$(sed 's/#.*//' requirements.txt | grep -c .) Python packages: about a minute"
	@$(PYTHON) -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(PYTHON) -m pip install -q --disable-pip-version-check --no-deps -e .
	@rm -f $(VENV)/installed-*
	@touch $@
	@echo "setup is done"

# Demo ---------------------------------------------------------------------------------------------

sim: setup  ## build the simulated SoC (2 to 3 min the first time, then 1 s)
	@$(PYTHON) targets/sim.py --build

demo: sim  ## a story from the simulated hardware; PROMPT="..." begins it (4 min the first time, then 30 s)
	@$(VENV)/bin/llama2-host generate --sim --model $(MODEL) --prompt "$$PROMPT"

# The page and OpenAI's interface on the simulated SoC; HTTP_PORT=N for another port than 8080.
HTTP_PORT ?= 8080
serve: sim  ## a page to chat on, and OpenAI's interface, on the simulated hardware
	@$(VENV)/bin/llama2-host serve --sim --model $(MODEL) --http-port $(HTTP_PORT) --open

# Tests --------------------------------------------------------------------------------------------

C_FILES  = $(wildcard $(foreach folder,firmware firmware/baseline soc/sim tests/accel tests/firmware tests/faults tests/fuzz tests/soc/firmware,$(folder)/*.[ch] $(folder)/*.cpp))

lint: setup  ## style, faults and types of the Python, layout of the C: what a change must pass first (20 s)
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	@echo clang-format --dry-run -Werror: $(words $(C_FILES)) files
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)

format: setup  ## lay the C out, and mend of ruff's findings what it can mend itself
	@$(VENV)/bin/clang-format -i $(C_FILES)
	$(VENV)/bin/ruff check --fix

# The fast ones first; then those that run the simulator, which one of them builds.
test: lint  ## all tests, the simulator's too (20 min)
	@rm -f build/skips.txt
	$(PYTHON) -m pytest -q -n 2 -m "not soc and not uart and not reference and not install and not web"
	$(PYTHON) -m pytest -q -n 2 --dist loadfile -m "soc and not reference"
	@echo "skipped tests, by reason:"; if [ -s build/skips.txt ]; then sed 's/^/  /' build/skips.txt; else echo "  none"; fi

test-fast: setup  ## what one runs between two edits: no simulator, no long ones (2 min)
	$(PYTHON) -m pytest -q -n 2 -m "not soc and not uart and not reference and not install and not web" tests/spec tests/host tests/firmware tests/accel/test_stage.py tests/accel/test_numeric.py tests/test_rooms.py

wave: setup  ## one test of tests/accel with its waveform: TEST=tests/accel/test_rows.py::test_name, into build/waves (seconds)
	@test -n "$$TEST" || { echo "TEST is not set: make wave TEST=tests/accel/test_stage.py::test_name" >&2; exit 1; }
	WAVES=build/waves $(PYTHON) -m pytest -q "$$TEST"

# Proofs of tests/proofs/catalogue.py, and the refutation of one-line mutants of the units that they are of.
prove: setup  ## prove streams, queues, the K/V owner and doors for every input, refute their mutants, recorded (20 min)
	$(PYTHON) -m bench.prove

# Goes on where it stopped; python -m bench.mutants --only accel/dram looks at a part.
mutants: setup  ## mutants of core, firmware, specification and client, each against its tests, recorded (90 min)
	$(PYTHON) -m bench.mutants --jobs 2

# The client and the firmware on a PC, in virtual time, each fault by a seed: two campaigns, recorded.
faults: setup  ## 200,000 faults of line, board and power between client and firmware, recorded (10 min)
	$(PYTHON) -m bench.faults

# No libFuzzer needed; python -m bench.fuzz_firmware --libfuzzer SECONDS uses clang's.
fuzz-firmware: setup  ## a million frames and damaged images for the firmware under ASan and UBSan, recorded (2 min)
	$(PYTHON) -m bench.fuzz_firmware

# Which branches no test takes, line by line; python -m bench.coverage --report prints them once more.
coverage: setup  ## branches of client, specification and firmware that the tests take, recorded (10 min)
	$(PYTHON) -m bench.coverage

# Sessions by chance, each a seed; what is finished is kept, so that a run which was killed goes on.
soak: setup  ## random sessions on the simulated SoC, 10,000 tokens and a million logits equal to golden, recorded (25 min)
	$(PYTHON) -m bench.soak

fuzz-core: setup  ## 500 random decoders on the core alone, every step equal to golden, recorded (7 min); ENDLESS=1 goes on
	$(PYTHON) -m bench.fuzz_core $(if $(ENDLESS),--endless)

# Needs the package registry, so it is no part of `make test`.
test-install: setup  ## pip install . with each Python from 3.10 to 3.13 that is there, and a story from it (3 min)
	$(PYTHON) -m pytest -q -m install

# What this machine has from somewhere else, a user's lacks: a Debian 12 with git, make and its own Python, and no more.
test-debian:  ## make test of the last commit on a fresh Debian in a folder of its own; needs root and debootstrap (35 min)
	@tests/debian.sh

# For tests that count on a machine with nothing else to do; SEED=N draws others, TESTS=... runs a part.
SEED  ?= 0
TESTS ?= tests
test-busy: setup  ## the tests while by chance one process or another stands still for up to 2 s; SEED=N, TESTS=tests/host (hours)
	$(PYTHON) -m tests.busy --seed $(SEED) $(PYTHON) -m pytest -q -n 2 --dist loadfile -m "not uart and not reference and not install and not web" $(TESTS)

# What needs reference data, a real checkpoint with its recorded ids: REFERENCE_DATA=FOLDER make test-reference.
test-reference: setup  ## tests against a real checkpoint in the folder that REFERENCE_DATA names (5 min)
	@test -n "$$REFERENCE_DATA" || { echo "REFERENCE_DATA is not set: name the folder that holds models/ and corpus/" >&2; exit 1; }
	$(PYTHON) -m pytest -q -n 2 --dist loadfile -m reference

# The page in Chromium, and several servers behind HAProxy; both are installed from Debian.
test-web: setup  ## the page in Chromium and servers behind HAProxy, both installed from Debian (3 min)
	@$(call debian,$(shell sed 's/\#.*//' requirements-debian-web.txt))
	$(PYTHON) -m pytest -q -m web

# 64 clients with 2,000 requests, a third of which leave midway; then 10,000 random requests: some minutes.
server-load: setup  ## 2,000 requests from 64 clients and 10,000 random ones, recorded (10 min)
	$(PYTHON) -m bench.server_load
	$(PYTHON) -m bench.server_fuzz

# Eight positions behind 16,392 others, on the simulated SoC, equal to golden; each K/V format: some minutes.
long-context: sim  ## eight positions behind 16,392 others, equal to the integer model (10 min)
	$(PYTHON) -m bench.long_context

# The UART bit by bit, with the whole core; `make test` does it with a stub.
uart: setup  ## the UART bit by bit with the whole core (6 min)
	$(PYTHON) -m pytest -q -m uart

# FPGAs: none of these needs a board or a vendor's tool ---------------------------------------------

# Look-up tables, registers, memories and multipliers of each board's SoC, unit by unit: about five minutes.
resources: setup  ## look-up tables, memories and multipliers of each board, unit by unit (5 min)
	$(PYTHON) -m bench.resources

# The core alone on an ECP5-6, placed and routed: its clock and its ten worst paths: some ten minutes.
timing: setup  ## the core alone on an ECP5-6, placed and routed: its clock and ten worst paths (10 min)
	$(PYTHON) -m bench.timing

# The whole SoC to an ECP5 bitstream; fails if the clock is missed: a quarter of an hour.
bitstream: setup  ## the whole SoC to an ECP5 bitstream by open tools (15 min)
	$(PYTHON) -m bench.bitstream

# Documents ----------------------------------------------------------------------------------------

# ALLOW_STALE=1 writes figures of earlier sources too, and marks them; without it they are refused.
docs: setup  ## write the generated pages, tables and plots anew (10 s); ALLOW_STALE=1 marks old figures
	$(PYTHON) -m llama2_spec.emit_docs
	$(PYTHON) -m bench.emit_docs $(if $(ALLOW_STALE),--allow-stale)

# Its packages come when they are first wanted: nothing else needs them.
site: setup  ## these pages as a site in build/site; fails at a broken link (10 s)
	@$(PYTHON) -c 'import material' 2>/dev/null || $(PYTHON) -m pip install -q --disable-pip-version-check -r requirements-docs.txt
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet
	@echo "open build/site/index.html"

clean:  ## remove what was built, not .venv
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
