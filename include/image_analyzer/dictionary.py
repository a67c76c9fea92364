"""The data dictionary: every table, view and column with its comment, read from the SQL files."""

from __future__ import annotations

import re

from image_analyzer.records import Record
from image_analyzer.sql import statement, view_names

_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+) \(\n(.*?)\n\);", re.DOTALL)
_TABLE_COLUMN = re.compile(r"^    (\w+) (.*?)( NOT NULL)? COMMENT '((?:[^']|'')*)',?$", re.MULTILINE)
_VIEW = re.compile(r"CREATE OR REPLACE VIEW (\w+) \(\n(.*?)\n\)\nCOPY GRANTS\nCOMMENT = '((?:[^']|'')*)'", re.DOTALL)
_VIEW_COLUMN = re.compile(r"^    (\w+) COMMENT '((?:[^']|'')*)',?$", re.MULTILINE)
_GRAIN = re.compile(r"^-- Grain: +(.*)$", re.MULTILINE)
_TABLE_COMMENTS = {
    "IMAGE_RESULTS": "The results. One row per image address and language.",
    "IMAGE_RESULTS_HISTORY": "One row per replaced version of such a row.",
    "IMAGE_REVIEWS": "One row per decision of a person, and per row of IMAGE_RESULTS that it is about.",
    "IMAGE_UNUSED_ANSWERS": "One row per answer that was paid for and did not replace a better caption.",
}


class Column(Record):
    """One column; views have no declared type."""

    name: str
    kind: str
    comment: str


class Relation(Record):
    """One table or view."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    is_view: bool


def read_relations() -> list[Relation]:
    """Return the tables, then the views, as their SQL files declare them."""
    tables = [
        Relation(
            name=name,
            comment=_TABLE_COMMENTS[name],
            columns=tuple(
                Column(name=column, kind=kind + (null or ""), comment=_unquote(comment))
                for column, kind, null, comment in _TABLE_COLUMN.findall(body)
            ),
            is_view=False,
        )
        for name, body in _TABLE.findall(statement("create_tables"))
    ]
    return (
        tables
        + [_read_view(name) for name in view_names() if name != "IMAGE_VERSIONS"]
        + [_read_view("IMAGE_VERSIONS")]
    )


def _read_view(name: str) -> Relation:
    text = statement(f"views/{name.lower()}")
    declared, grain = _VIEW.search(text), _GRAIN.search(text)
    if declared is None or grain is None or declared[1] != name:
        raise ValueError(f"views/{name.lower()}.sql does not declare {name} with a comment on each column")
    columns = tuple(Column(name=n, kind="", comment=_unquote(c)) for n, c in _VIEW_COLUMN.findall(declared[2]))
    return Relation(name=name, comment=f"{_unquote(declared[3])}. Grain: {grain[1]}", columns=columns, is_view=True)


def _unquote(comment: str) -> str:
    return comment.replace("''", "'")


def render_dictionary() -> str:
    """Return the dictionary as Markdown."""
    parts = [
        "# Data dictionary",
        "",
        "Made from `include/sql/` by `make dictionary`; a test fails where it is out of date.",
        "",
    ]
    for relation in read_relations():
        parts += [f"## {relation.name}", "", f"{'View. ' if relation.is_view else 'Table. '}{relation.comment}", ""]
        parts += (
            ["| column | comment |", "|---|---|"]
            if relation.is_view
            else ["| column | type | comment |", "|---|---|---|"]
        )
        for column in relation.columns:
            kind = "" if relation.is_view else f" {column.kind} |"
            parts.append(f"| `{column.name}` |{kind} {column.comment} |")
        parts.append("")
    return "\n".join(parts)
