"""Several workers, one of them killed: the services of docker-compose.yaml as processes."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
from compose_processes import require_servers
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
