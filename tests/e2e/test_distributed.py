"""Several workers, one of them killed: the services of docker-compose.yaml as processes."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
from compose_processes import ComposeProcesses, require_servers
from distributed import make_airflow_secrets, run_distributed
from secrets_planted import PLANTED, leaks

from image_analyzer.errors import ConfigurationError

pytestmark = pytest.mark.e2e


def test_a_worker_dies_and_the_table_is_right(tmp_path: Path) -> None:
    """Its batches go to the other one; each picture has a sound row; what is paid again was under way; no log has a secret."""
    try:
        require_servers()
    except ConfigurationError as missing:
        pytest.skip(f"{missing}: several workers are not tested")
    # A connection holds no OAuth token, so init refuses to start with one.
    planted = {**PLANTED, "SNOWFLAKE_TOKEN": "", **make_airflow_secrets()}
    events: list[str] = []
    with mock.patch.dict(os.environ):
        outcome = run_distributed(tmp_path, 40, events.append, BATCH_SIZE="10", OPENAI_CONCURRENCY="1", **planted)

    assert ("success", "success") == outcome.states, events
    assert {"ok": 40} == outcome.statuses
    assert 0 < outcome.retried
    assert outcome.paid_again <= outcome.allowed
    assert (40 + outcome.paid_again, 0) == (outcome.calls, outcome.calls_of_second_run)
    assert outcome.is_right
    assert [] == leaks([tmp_path / "compose"], filter(None, planted.values()))


def test_the_faces_and_mlflow_start(tmp_path: Path) -> None:
    """What profiles add becomes healthy by its own command and check; the add-on has the sign-in that it wants."""
    given = {
        "S3_BUCKET": "images",
        **{f"SNOWFLAKE_{name}": "planted" for name in ("ACCOUNT", "USER", "PASSWORD")},
        "API_KEYS": f"ada:{'0' * 64}",
    }
    processes = ComposeProcesses(tmp_path, {**given, **make_airflow_secrets()})
    secrets = tmp_path / "tmp" / "addon" / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir(parents=True)
    secrets.write_text('[auth]\nredirect_uri = "http://localhost:8501/oauth2callback"\ncookie_secret = "planted"\n')
    try:
        processes.up("mlflow", "api", "addon")
    finally:
        processes.down()
