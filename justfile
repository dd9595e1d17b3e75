# `just check` runs all that the continuous integration runs, in the active environment.

check: lint types docs test

test:
    pytest

# minutes instead of seconds: whole runs on the embedded backbone, torch.compile
test-slow:
    pytest -m slow

lint:
    ruff check .
    ruff format --check .

types:
    mypy

docs:
    python docs/generate.py --check

format:
    ruff check --fix .
    ruff format .
    python docs/generate.py
