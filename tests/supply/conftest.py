"""What is shipped: lists of it, what is known of it, and an installation without a network."""

from pathlib import Path

ROOT = Path(__file__).parents[2]

#: The Python that has the packages of locks/supply.txt; make test-supply makes it.
SUPPLY_PYTHON = ROOT / ".venv-supply/bin/python"
