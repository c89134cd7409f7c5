# The commands of a checkout. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PHOTOS ?=
OUTPUT ?= gpu.md
IN_PARALLEL = -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
SIZE ?= small

# Other files are tested at the same time: more threads would wait for each other.
test torture browser: export OMP_NUM_THREADS ?= 1
# They start hundreds of processes, each of which would compile the package where no bytecode is kept.
test torture browser: export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test torture browser gpu check format docs docs-serve cli-page schema-dump setup wheel bench-gpu clean

help:
	@echo "make setup                    make the virtual environment in .venv"
	@echo "make demo                     index sample photos and open the app"
	@echo "make demo PHOTOS=~/Pictures   index your own photos and open the app"
	@echo "make test                     run the tests, JOBS=3 files at a time"
	@echo "make torture SIZE=full        try faults by the hundred (small: a quarter of an hour; full: hours)"
	@echo "make browser                  run the tests that drive Chromium"
	@echo "make gpu                      run the tests that need a CUDA device"
	@echo "make check                    lint, formatting and types"
	@echo "make format                   format, and fix what the linter can fix"
	@echo "make docs                     build the documentation into build/site, and check its links"
	@echo "make docs-serve               show the documentation while you write it"
	@echo "make cli-page                 write docs/cli.md anew from the commands"
	@echo "make schema-dump              dump the catalogue's newest version, before you change its tables"
	@echo "make wheel                    build the wheel into dist/"
	@echo "make bench-gpu                measure on the GPU, into OUTPUT (gpu.md)"

demo: setup
	$(BIN)/vitmae-search demo $(if $(PHOTOS),"$(PHOTOS)")

# Two cores are shared by three, as many tests wait for servers.
test: JOBS ?= 3
test: setup
	$(BIN)/python -m pytest -m "not browser and not gpu" $(IN_PARALLEL)

torture: setup
	$(BIN)/python -m pytest tests/faults --torture $(SIZE) --timeout 0 $(IN_PARALLEL)

browser: setup
	$(BIN)/python -m pytest -m browser $(IN_PARALLEL)

gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m pytest -m gpu

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/zensical build --clean --strict
	$(BIN)/python tests/docs/check_site.py build/site

docs-serve: setup
	$(BIN)/zensical serve

cli-page: setup
	$(BIN)/python tests/docs/cli_page.py

schema-dump: setup
	$(BIN)/python tests/catalog/dump_catalogue.py

wheel: setup
	$(BIN)/python -m build --wheel --no-isolation

# With the environment's Python where there is one, else with any that has a torch for the GPU.
bench-gpu:
	for words in encoding "end_to_end --model shipped" "end_to_end --model base"; do \
		$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.$$words --device cuda | tee -a $(OUTPUT); done

setup: $(VENV)/.ready

# torch comes first and pinned: an open range would fetch the newest build with its CUDA packages.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("vitmae-search needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV); the first time this takes a few minutes. pip says what it is at."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[demo,test,dev,docs,openvino]"
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
