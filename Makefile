PYTHON ?= .venv/bin/python

.PHONY: check lint test check-slow audit

check: lint test

lint:
	$(PYTHON) -m ruff check rakefarm tests benchmarks configs scripts
	$(PYTHON) -m ruff format --check rakefarm tests benchmarks configs scripts
	$(PYTHON) -m mypy
	$(PYTHON) -m bandit --quiet --configfile pyproject.toml --recursive rakefarm

test:
	$(PYTHON) -m pytest

audit:
	$(PYTHON) -m pip_audit --local --skip-editable

check-slow:
	$(PYTHON) -m pytest -m "slow or peer or abuse or slurm or engine" --timeout 600
	$(PYTHON) benchmarks/identical.py
	$(PYTHON) benchmarks/real_projects.py
	$(PYTHON) benchmarks/torture.py
	$(PYTHON) benchmarks/quotes.py
	$(PYTHON) benchmarks/large_files.py
	$(PYTHON) benchmarks/many_actions.py
	$(PYTHON) benchmarks/throughput.py
