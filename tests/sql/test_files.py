"""The SQL files, the DDL and the records say the same."""

from __future__ import annotations

import re

import pytest

from image_analyzer.records import ErrorCode
from image_analyzer.sql import SQL_FOLDER, check_names, statement
from image_analyzer.table import WAREHOUSE_COLUMNS, ResultRow

FILES = sorted(SQL_FOLDER.rglob("*.sql"))


def _ddl_columns(table: str) -> dict[str, str]:
    body = re.search(rf"CREATE TABLE IF NOT EXISTS {table} \((.*?)\n\);", statement("create_tables"), re.DOTALL)
    assert body
    return dict(re.findall(r"^    ([A-Z0-9_]+) .*?COMMENT '(.*)'", body[1], re.MULTILINE))


def test_the_table_has_the_columns_of_the_record() -> None:
    """What the pipeline writes and what the warehouse adds is the whole table, each column with a comment."""
    columns = _ddl_columns("IMAGE_RESULTS")

    assert {name.upper() for name in (*ResultRow.model_fields, *WAREHOUSE_COLUMNS)} == set(columns)
    assert all(len(comment) > 10 for comment in columns.values())


@pytest.mark.parametrize("name", ["stage_rows", "merge_image_results"])
def test_every_column_is_staged_and_merged(name: str) -> None:
    """No column of the record is forgotten on its way into the table."""
    text = statement(name)

    assert [] == [column for column in ResultRow.model_fields if not re.search(rf"\b{column.upper()}\b", text)]


def test_a_full_update_sets_every_column() -> None:
    """The first branch of the MERGE, for rows no person touched, sets all but the key."""
    branch = statement("merge_image_results").split("WHEN MATCHED")[1]
    columns = {column.upper() for column in ResultRow.model_fields} - {"IMAGE_URI", "LANGUAGE"}

    assert columns | {"FLAGS", "UPDATED_AT"} == set(re.findall(r"^        ([A-Z0-9_]+) = ", branch, re.MULTILINE))


def test_history_keeps_every_column() -> None:
    """The old row is stored whole."""
    kept = set(re.findall(r"'([A-Z0-9_]+)', OLD\.\1", statement("insert_history")))

    assert set(_ddl_columns("IMAGE_RESULTS")) == kept


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_has_a_header(file: object) -> None:
    """Each statement says what it is for and who calls it."""
    text = file.read_text()  # type: ignore[attr-defined]

    assert re.match(r"-- (Purpose|Offending): ", text)
    assert re.search(r"^-- Caller: ", text, re.MULTILINE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_file_spells_an_error_code(file: object) -> None:
    """Which codes are tried again is bound from the one list in the code, never copied into SQL."""
    text = file.read_text()  # type: ignore[attr-defined]

    assert [] == [code.value for code in ErrorCode if f"'{code.value}'" in text]


def test_there_are_checks() -> None:
    """The folder is found and holds the checks that the README names."""
    assert {"key_is_unique", "caption_is_short", "read_has_sha256"} <= set(check_names())
