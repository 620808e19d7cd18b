# Two commands do it all:  make repro  (data -> search -> retrain -> track -> scores)   and   make test
# make lab opens the notebooks; make notebooks runs them all again and keeps their outputs; make clean forgets results;
# make bench measures the time budget, start-up to evaluation, in a few minutes, and keeps it in benchmarks/history.jsonl;
# make bench-search times a step of the search against the usual implementation; make bench-track prints success, speed and
# cost of every known model beside CSRT and a DiMP-18 (ARGS="--help" says what else it can be asked);
# make rehearse runs the paper's recipe from made-up data of the real shape to its tables, cut to a few updates, into rehearsal/;
# make onnx writes the ONNX graphs of the models that ship anew, after their weights have changed; make docs builds the site,
# make gif the moving picture of the README, make package a wheel and a source archive.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME
# One thread a process (tirnas.core.use_threads says why), also in notebooks that run outside the pipeline.
export OMP_NUM_THREADS := 1
# DVC starts a process after each command to report how it is used; nothing here reports anything.
export DVC_NO_ANALYTICS := 1
READY := .venv/.ready
INSTALL = if [ -x .venv/bin/pip ]; then PIP=".venv/bin/python -m pip"; else PIP="$(PYTHON) -m pip --python .venv/bin/python"; fi; \
	$$PIP install -q --disable-pip-version-check -c constraints.txt

.PHONY: help repro test lab notebooks docs gif package onnx bench bench-search bench-track rehearse clean
help:
	@sed -n 's/^# //p' Makefile

repro: $(READY)
	dvc repro

# Both test runners always run; either one fails the target.
test: $(READY)
	@rc=0; nbdev_test --n_workers 2 || rc=$$?; python -m pytest -q -n 2 --dist worksteal || rc=$$?; exit $$rc

lab: $(READY)
	jupyter lab nbs

notebooks: $(READY)
	jupyter execute --inplace nbs/[0-9]*.ipynb nbs/tutorials/*.ipynb && nbdev_export && nbdev_clean
	@python -c 'import glob, nbformat; notebooks = {f: nbformat.read(f, 4) for f in glob.glob("nbs/[0-9]*.ipynb") + glob.glob("nbs/tutorials/*.ipynb")}; [nbformat.write(n, f) for f, n in notebooks.items() if n.metadata.pop("widgets", None)]'

docs: .venv/.docs
	sphinx-build -q -j 2 -c docs -d _docs/.doctrees . _docs/html
	@echo "make: the site is _docs/html/index.html"

gif: $(READY)
	python docs/make_gif.py docs/track.gif

package: $(READY)
	python -m build --no-isolation

bench: $(READY)
	python benchmarks/all.py $(ARGS)

bench-search: $(READY)
	python benchmarks/search.py
	python benchmarks/search.py --memory

bench-track: $(READY)
	python benchmarks/track.py $(ARGS)

rehearse: $(READY)
	python benchmarks/rehearse.py --out rehearsal $(ARGS)

onnx: $(READY)
	python -c 'from tirnas.export import export_shipped; print(*export_shipped(), sep="\n")'

clean:
	rm -rf out prepared checkpoints runs/*.ipynb

# The virtual environment. Debian splits venv off Python, so its absence is named and worked round with the outer pip.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: Python is missing: install Python 3.11 or newer, or say where it is: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: tirnas needs Python 3.11 or newer; say where one is: make PYTHON=/path/to/python3"; exit 1; }
	@command -v git >/dev/null || { echo "make: git is missing: dvc needs it; install git and run make again"; exit 1; }
	@$(PYTHON) -c 'import venv' 2>/dev/null || { echo "make: Python's venv module is missing: install it (Debian: apt install python3-venv) and run make again"; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv .venv; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --without-pip .venv; \
	else echo "make: Python has neither ensurepip nor pip: install them (Debian: apt install python3-venv) and run make again"; exit 1; fi
	@echo "make: installing into .venv (1.8 GB, a few minutes the first time)"
	@$(INSTALL) -e '.[dev]'
	@touch $@

.venv/.docs: $(READY)
	@$(INSTALL) -e '.[dev,docs]'
	@touch $@
