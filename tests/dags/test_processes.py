"""Commands of ours as processes beside the worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.sdk.exceptions import AirflowFailException
from conftest import Night

import image_analyzer_processes
from image_analyzer.errors import ConfigurationError, RetryableError
from image_analyzer_processes import connection_environment, run_process


@pytest.fixture(autouse=True)
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's connections need a task around them."""
    monkeypatch.setattr("image_analyzer_airflow.find_connection", lambda _: None)
    monkeypatch.setattr(image_analyzer_processes, "find_connection", lambda _: None)


def python(code: str) -> list[str]:
    """Return a command."""
    return [sys.executable, "-c", code]


def test_the_outcome_is_the_json_among_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Everything is in the task's log; what comes back is the object, though a library speaks after it."""
    caplog.set_level("INFO")
    code = "import sys; print('begun'); print('{\"a\": 1}', flush=True); print('bye', file=sys.stderr)"

    assert '{"a": 1}' == run_process(python(code))
    assert ["begun", '{"a": 1}', "bye"] == [record.message for record in caplog.records]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import sys; print('set DATA'); sys.exit(1)", AirflowFailException),
        ("import sys; print('MLflow does not answer'); sys.exit(75)", RetryableError),
        ("import os; print('growing', flush=True); os.kill(os.getpid(), 9)", RetryableError),
    ],
)
def test_how_it_ended_decides_whether_it_is_tried_again(code: str, error: type[Exception]) -> None:
    """What no retry mends fails at once; what was killed or may pass is tried again; the last line says why."""
    with pytest.raises(error, match=r"set DATA|does not answer|growing"):
        run_process(python(code))


def test_it_ends_with_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the task, such as a time-out, does not leave the process behind: its input ends, then it is ended."""
    said = []

    def break_off(text: str) -> None:
        said.append(text)
        raise TimeoutError

    monkeypatch.setattr(image_analyzer_processes.log, "info", break_off)
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read(); print('input ended')"

    with pytest.raises(TimeoutError):
        run_process(python(code))
    with pytest.raises(ProcessLookupError):
        os.kill(int(said[0]), 0)


def test_it_ends_with_whoever_started_it() -> None:
    """A parent that is killed takes it along: on a leash a process ends when its input does."""
    child = (
        "from image_analyzer.leash import end_with_input; import time; "
        "end_with_input(); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(python(parent), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()

    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise AssertionError("it lives on")


def test_a_connection_is_handed_on_whole(
    monkeypatch: pytest.MonkeyPatch, make_night: Callable[..., Night], tmp_path: Path
) -> None:
    """What it does not say is empty, whatever the worker's own settings say; a key inside it becomes a file."""
    settings = make_night(openai=False).settings()
    extra = {"account": "a", "database": "d"}

    def find(name: str) -> Any:
        found = SimpleNamespace(conn_id=name, login="u", password="p", schema="s", extra_dejson=extra)
        return found if name == settings.snowflake_conn_id else None

    monkeypatch.setattr(image_analyzer_processes, "find_connection", find)
    found = connection_environment(settings, tmp_path)

    assert ("u", "p", "a", "", "", "") == tuple(
        found[f"SNOWFLAKE_{name}"]
        for name in ("USER", "PASSWORD", "ACCOUNT", "AUTHENTICATOR", "TOKEN", "PRIVATE_KEY_FILE")
    )
    for content in ("-----BEGIN", "LS0tLS1CRUdJTg=="):
        extra["private_key_content"] = content
        found = connection_environment(settings, tmp_path)
        assert ("", "p") == (found["SNOWFLAKE_PASSWORD"], found["SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"])
        assert "-----BEGIN" == Path(found["SNOWFLAKE_PRIVATE_KEY_FILE"]).read_text()
    extra["private_key_content"] = "my-secret-keys"
    with pytest.raises(ConfigurationError, match="private_key_content of connection snowflake_default is") as caught:
        connection_environment(settings, tmp_path)
    assert "my-secret-keys" not in str(caught.value)


def test_the_key_of_a_connection_reaches_the_process(make_night: Callable[..., Night], tmp_path: Path) -> None:
    """Without connections only the key that the settings hold is handed on."""
    settings = make_night().settings()

    assert {"OPENAI_API_KEY", "OPENAI_BASE_URL"} == set(connection_environment(settings, tmp_path))
    assert {} == connection_environment(
        settings.model_copy(update={"openai_api_key": type(settings.openai_api_key)("")}), tmp_path
    )
