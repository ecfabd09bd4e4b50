# make demo   a trained CNN on real digits, compressed, measured and judged, in three minutes
# make test   the whole test suite
# make gate   the demo run anew, held against reports/digits.json
# make check  lint, test and gate: what has to be green before anything lands
#
# Every target makes the environment it needs, in .venv, from pyproject.toml and constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint gate check format clean

demo: $(READY)
	$(BIN)/compress run digits --checkpoint models/digits.safetensors -o runs/demo

test: $(READY)
	$(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typed
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/typed .
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p compress

# The demo's own verdict, which is also about speed, may be inconclusive on a busy machine; the limits here are not.
gate: $(READY)
	rm -rf runs/gate
	-$(BIN)/compress run digits --checkpoint models/digits.safetensors -o runs/gate
	$(BIN)/compress gate runs/gate/report.json --limits reports/gate.yaml

check: lint test gate

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build runs .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "compress needs Python 3.11 to 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[develop]'
	touch $(READY)
