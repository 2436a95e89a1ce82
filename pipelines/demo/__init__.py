"""Embedded demo data: seeded drawings that look like radiology, with captions, labels and case ids."""

from pipelines.demo.writer import COLUMNS, SPLITS, VERSION, DemoSummary, write_demo

__all__ = ["COLUMNS", "SPLITS", "VERSION", "DemoSummary", "write_demo"]
