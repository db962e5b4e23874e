# Everything below works on a machine with Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo

.PHONY: help demo pictures docs test test-fast check dist audit audit-report format constraints clean

CRATES := tests/audit/export/crate-validator.txt

help:  ## what this file can do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml constraints.txt $(CRATES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,viewer,dicom,docs]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(CRATES)
	touch $@

demo: $(VENV)/.installed  ## both pipelines on a simulated cohort (OUT=demo)
	$(BIN)/medgen demo --out $(OUT) --overwrite

docs: $(VENV)/.installed  ## the documentation site (build/docs/site); a warning is an error
	$(BIN)/python docs/site

pictures: $(VENV)/.installed  ## the pictures of README.md, from the demo in OUT
	$(BIN)/python docs/images.py $(OUT)

test: $(VENV)/.installed  ## every test
	$(BIN)/python -m pytest -q -n auto --dist loadfile

# Without what trains, starts processes or reads real cohorts.
FAST := tests/builders tests/data tests/installation/test_packaging.py tests/metrics tests/report tests/system \
  tests/test_config.py tests/test_seeds.py tests/test_structure.py tests/test_volume.py

test-fast: $(VENV)/.installed  ## the quick tests, under a minute
	$(BIN)/python -m pytest -q -m "not slow" $(FAST)

check: $(VENV)/.installed  ## the gate: format, lint, types, imports, cards, every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/medgen card lint data_cards/*.md
	$(MAKE) audit-report
	$(MAKE) test

# The version is said by the wheel itself, in an environment that holds nothing but it and what is installed here.
dist: $(VENV)/.dist  ## wheel and source distribution in dist/, checked
	rm -rf dist build *.egg-info
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/installation/wheel.py dist

$(VENV)/.dist: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "build>=1.2" "twine>=6"
	touch $@

# Known vulnerabilities of what is installed; needs the network.
audit: $(VENV)/.audit  ## known vulnerabilities of what is installed
	$(BIN)/python -m pip_audit --skip-editable --progress-spinner off --timeout 10

$(VENV)/.audit: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "pip-audit>=2.7"
	touch $@

# The same for make check, where a database of vulnerabilities can be asked (it is asked about one package first). A
# report: a vulnerability that was found yesterday in a pinned package does not say that this tree is broken.
audit-report: $(VENV)/.installed
	@$(MAKE) --no-print-directory $(VENV)/.audit >/dev/null 2>&1; \
	grep '^pyyaml==' constraints.txt | cut -d' ' -f1 > $(VENV)/probe.txt; \
	answer=$$(timeout 30 $(BIN)/python -m pip_audit --no-deps --disable-pip --progress-spinner off --timeout 10 \
	  -r $(VENV)/probe.txt 2>&1) && case "$$answer" in *"could not be audited"*) false;; esac; \
	if [ $$? -eq 0 ]; then timeout 300 $(MAKE) --no-print-directory audit || true; \
	else echo "no database of vulnerabilities can be reached: not audited"; fi

format: $(VENV)/.installed  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pins of every supported platform, resolved from pyproject.toml around the torch release that was tested
# (dateutil below 3, since current graphene, which mlflow needs, allows no other).
constraints:  ## the pins, made anew
	printf 'torch==2.13.0\npython-dateutil<3\n' > constraints.in
	uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header -c constraints.in \
	  --extra test --extra viewer --extra dicom --extra docs --extra dist --extra postgresql --extra s3 \
	  pyproject.toml | grep -v '^ *#' > constraints.new
	mv constraints.new constraints.txt
	rm constraints.in

clean:  ## remove what make has made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
