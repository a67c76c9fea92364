"""Rows as CSV for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(output: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a heading and rows; a caption or a file name that a spreadsheet would run as a formula is kept from it."""
    writer = csv.writer(output)
    writer.writerow(columns)
    writer.writerows([_disarm(row[name]) for name in columns] for row in rows)


def _disarm(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINS_A_FORMULA) else value
