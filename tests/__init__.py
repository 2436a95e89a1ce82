"""Tests, one folder per room of the code; `e2e` and `gpu` are marks and folders of their own."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
