# make demo   environment, install, simulated detectors, their masks, the result
# make quick  the tests that take a moment: no simulation of length, no real clients
# make test   lint, types and all tests but the long ones
# make long   the tests that take a minute each: whole runs of the real pipeline
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(shell $(p) -c 'import sys; print("$(p)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo
WORKERS ?= 2
unexport PYTHONDONTWRITEBYTECODE  # else every command that a test starts is compiled anew

.PHONY: help demo quick test long lint docs configs figures bench clean

help:
	@sed -n 's/^# //p' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check --upgrade pip
	$(BIN)/pip install -qq --disable-pip-version-check -e ".[plots]"
	@touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install -qq --disable-pip-version-check -e ".[test,docs]"
	@touch $@

demo: $(VENV)/installed
	BIN=$(BIN) DEMO=$(DEMO) WORKERS=$(WORKERS) sh docs/demo.sh

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed && cp -Rp badpix build/typed/ && cp -Rp cli configs build/typed/badpix/
	cd build/typed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p badpix
	$(BIN)/pytest -q -p no:cacheprovider tests/test_layers.py

quick: $(VENV)/tested
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not slow and not clients'

# tests of one file stay in one process: they share their simulated exposures
test: lint
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not long'

long: $(VENV)/tested
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m long

$(VENV)/documented: $(VENV)/installed
	$(BIN)/pip install -qq --disable-pip-version-check -e ".[docs]"
	@touch $@

docs: $(VENV)/documented
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

configs: $(VENV)/installed
	$(BIN)/python -m badpix.configs
	$(BIN)/python docs/generate.py

# the pictures of the docs, from the simulation; they are committed
figures: $(VENV)/installed
	$(BIN)/python docs/figures.py

bench: $(VENV)/tested
	$(BIN)/python benchmarks/bench_flats.py

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info docs/_build
