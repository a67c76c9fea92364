"""Run fakesnow as a Snowflake server over TLS: `python -m image_analyzer.local.snowflake_server FOLDER PORT CERT KEY`.

The stock server keeps everything in memory and differs from Snowflake where we would notice. This launcher mends
fakesnow 0.12.1, which is pinned for that reason: it keeps its databases in files, answers conflicts and broken
constraints with Snowflake's errors instead of HTTP 500, lets MERGE run inside a transaction, returns NULL time stamps as
NULL, and translates a statement once instead of each time.
"""

from __future__ import annotations

import importlib
import re
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import fakesnow.arrow
import fakesnow.cursor
import fakesnow.info_schema
import pyarrow as pa
import pyarrow.compute as pc
import snowflake.connector.errors
import uvicorn
from fakesnow.instance import FakeSnow
from sqlglot import exp

_WRITES = re.compile(r"^\s*(--.*\n\s*)*(merge|update|delete|insert|copy|create|drop|alter|truncate)\b", re.IGNORECASE)
_QUOTED_STAGE = re.compile(r"""FROM '@"?([A-Za-z0-9_$.]+)"?'\)""")
# What these say depends on the session, on other tables or on what is bound.
_OF_THE_SESSION = re.compile(r"""@|\$[a-z_]|information_schema|identifier\s*\(""", re.IGNORECASE)
# Half a megabyte each where values are part of the text; such a text does not come back, those that do come back soon.
_MOST_TRANSLATIONS = 100
_ALTER_SESSION = re.compile(r"(?is)^\s*alter\s+session\s+set\s+.*$")


def _mend_execute() -> None:
    original = fakesnow.cursor.FakeSnowflakeCursor.execute
    lock = threading.RLock()

    def execute(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(command, str):
            command = _QUOTED_STAGE.sub(r"FROM @\1)", command)  # as write_pandas of connector 4.8 writes it
            command = _ALTER_SESSION.sub("SELECT 'Statement executed successfully.'", command)
        try:
            if not _WRITES.match(command or ""):
                return original(self, command, *args, **kwargs)
            with lock:  # Snowflake lets one writer at a table; DuckDB would report a conflict instead
                return original(self, command, *args, **kwargs)
        except duckdb.ConstraintException as error:
            raise snowflake.connector.errors.ProgrammingError(str(error), errno=100072, sqlstate="22000") from error
        except duckdb.TransactionException as error:
            raise snowflake.connector.errors.ProgrammingError(str(error), errno=625, sqlstate="57014") from error

    fakesnow.cursor.FakeSnowflakeCursor.execute = execute  # type: ignore[method-assign]


def _mend_merge_in_transaction() -> None:
    """Skip the notes fakesnow takes of its own temporary MERGE table: they go to another attached database."""
    for name in ("insert_table_comment_sql", "insert_text_lengths_sql"):
        original = getattr(fakesnow.info_schema, name)

        def note(catalog: str, schema: str, table: str, *args: Any, _original: Any = original) -> Any:
            return "select 1" if table.lower() == "merge_candidates" else _original(catalog, schema, table, *args)

        setattr(fakesnow.info_schema, name, note)


def _mend_null_timestamps() -> None:
    original = fakesnow.arrow.timestamp_to_sf_struct

    def to_struct(stamps: Any) -> Any:
        array = stamps.combine_chunks() if isinstance(stamps, pa.ChunkedArray) else stamps
        struct = original(array.fill_null(0) if array.null_count else array)
        if not array.null_count:
            return struct
        fields = [struct.field(i) for i in range(struct.type.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(struct.type), mask=pc.is_null(array))

    fakesnow.arrow.timestamp_to_sf_struct = to_struct  # type: ignore[assignment]


def _mend_speed() -> None:
    """Translate a statement once: fakesnow walks it eighty times, which takes longer than DuckDB takes to run it."""
    cursor = fakesnow.cursor.FakeSnowflakeCursor
    execute, translate = cursor.execute, cursor._transform  # noqa: SLF001 - ours for this version of it
    kept: dict[tuple[str, int], Any] = {}  # the last used last
    lock = threading.Lock()

    def execute_noting(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        self.noted, self.part = command, 0
        return execute(self, command, *args, **kwargs)

    def translate_once(self: Any, statement: Any, params: Any) -> Any:
        self.part += 1  # of those that fakesnow makes of a MERGE
        if not _is_fixed(statement) or _OF_THE_SESSION.search(self.noted):
            return translate(self, statement, params)
        key = (self.noted, self.part)
        with lock:
            found = kept.pop(key, None)
        if found is None:
            found = translate(self, statement, params)
        with lock:
            kept[key] = found
            if len(kept) > _MOST_TRANSLATIONS:
                del kept[next(iter(kept))]
        return found.copy()

    cursor.execute, cursor._transform = execute_noting, translate_once  # type: ignore[assignment,method-assign]  # noqa: SLF001


def _is_fixed(statement: Any) -> bool:
    """Tell whether a statement's translation depends on nothing else: a query, a change of rows, a view, a plain table."""
    if isinstance(statement, exp.Create):
        return statement.kind == "VIEW" or (statement.kind == "TABLE" and statement.expression is None)
    return isinstance(statement, exp.Query | exp.Insert | exp.Update | exp.Delete)


def main() -> None:
    """Serve until stopped."""
    # By its full name: the package also exports a function called `server`.
    server: Any = importlib.import_module("fakesnow.server")
    folder, port, certificate, key = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    folder.mkdir(parents=True, exist_ok=True)
    _mend_execute()
    _mend_merge_in_transaction()
    _mend_null_timestamps()
    _mend_speed()
    server.shared_fs = FakeSnow(db_path=str(folder))
    # With several, DuckDB 2.0.0 loses a dictionary in some joins ("dict-surviving cache") and gives the database up.
    server.shared_fs.duck_conn.execute("SET GLOBAL threads = 1")
    for file in folder.glob("*.db"):  # databases of an earlier run
        server.shared_fs.connect(file.stem).close()
    server.app.debug = False
    uvicorn.run(
        server.app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


if __name__ == "__main__":
    main()
