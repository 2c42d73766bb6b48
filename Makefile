# One virtual environment serves every target. It is made anew when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
EXTRAS := train,trainers,trees,search,ray,web,trafilatura,unicode,languages,faiss,fasttext,test,dev
RUN    ?= runs/demo
JOBS   ?= 2
# Some containers forbid Python to keep what it compiled: each process that a test starts would then spend
# seconds on reading torch and Ray from source.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-6s %s\n", $$1, $$2}'

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"cuvee needs Python 3.11 or newer, {sys.executable} is {v[0]}.{v[1]}: run make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/installed  ## raw text to a trained model: curate, mix, stream, train, report
	$(BIN)/cuvee run --run-dir $(RUN)

# Tests run beside each other, and their matrices are small: threads of BLAS and OpenMP would wait for cores.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/installed  ## lint, types and every test that this machine can run
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/installed  ## ruff
	$(BIN)/python -m ruff check .

types: $(VENV)/installed  ## mypy --strict over the folders, under their import names
	$(BIN)/python -m pytest -q tests/test_layout.py -k types

bench: $(VENV)/installed  ## the pipeline's figures beside its limits
	$(BIN)/python -m benchmarks.pipeline

clean:  ## remove the virtual environment, build output and runs
	rm -rf $(VENV) build dist runs *.egg-info
