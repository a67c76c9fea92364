"""From an upload to its row without a clock: S3 tells SQS, the triggerer hears it, the scheduler starts the run."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from collecting import Collector
from conftest import Night, paint
from queueing import TellingBucket
from test_airflow import AirflowNight, _api, _wait_for

from image_analyzer.local.airflow import LocalAirflow

pytestmark = pytest.mark.e2e


@pytest.fixture
def bucket() -> Iterator[TellingBucket]:
    """A bucket that tells."""
    bucket = TellingBucket()
    yield bucket
    bucket.stop()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where metrics go."""
    collector = Collector()
    yield collector
    collector.stop()


def test_an_upload_starts_a_run_and_the_world_hears_of_it(
    make_night: Callable[..., Night], bucket: TellingBucket, collector: Collector, tmp_path: Path
) -> None:
    """Soon both rows are there, by one run; messages are gone; what is not ours starts nothing.

    Its numbers arrive where metrics go, its lineage where that goes. A late run and then a red one are told of by the topic,
    with the reason.
    """
    from image_analyzer.local.stack import free_ports

    lineage = tmp_path / "lineage.jsonl"
    environment = make_night(
        **bucket.settings(), EVENTS_GATHER_S="2", SENSE_TIMEOUT_S="1", SENSE_POLL_S="1",
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        NOTIFY_SNS_TOPIC=bucket.topic, RUN_DEADLINE_S="1",
        AIRFLOW__METRICS__OTEL_ON="True", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps({"type": "file", "append": True, "log_file_path": str(lineage)}),
    )  # fmt: skip
    night = AirflowNight(environment, tmp_path)
    (port,) = free_ports(1)
    airflow = LocalAirflow(tmp_path / "airflow", night.night.environment, port)
    airflow.set_up()
    airflow.start()

    def runs() -> list[tuple[str, str]]:
        return [
            (run["run_type"], run["state"]) for run in _api(airflow, "GET", "dags/caption_images/dagRuns")["dag_runs"]
        ]

    try:
        # Unpaused, the DAG runs for the last date of its schedule.
        _wait_for(lambda: runs() == [("scheduled", "success")])
        bucket.s3.put_object(Bucket="images", Key="elsewhere/a.jpg", Body=b"x")
        _wait_for(lambda: bucket.left() == 0)
        night.land(**{"my cat +1__jpg": paint("red"), "b__jpg": paint("blue")})
        _wait_for(lambda: len(night.rows()) == 2)
        _wait_for(lambda: ("asset_triggered", "success") in runs())
        _wait_for(lambda: bucket.left() == 0)
        assert {"ok"} == {row["STATUS"] for row in night.rows().values()}

        # They are sent every so often, each with what it was last; after this one there is no other of a run.
        _wait_for(lambda: collector.gauges.get("airflow.image_analyzer.run.step_seconds step=caption", [0])[-1] > 0)
        numbers = {name: values[-1] for name, values in collector.gauges.items()}
        night.night.order({"kind": "invalid_key", "times": 10})
        night.land(c__jpg=paint("green"))
        _wait_for(lambda: ("asset_triggered", "failed") in runs())
        notices: list[tuple[str, str]] = []
        _wait_for(lambda: len({subject for subject, _ in collect(notices, bucket)}) == 2)
    finally:
        airflow.stop()

    ours = {name.removeprefix("airflow.image_analyzer.run."): value for name, value in numbers.items()}
    assert (2, 0, 2, 2, 0) == tuple(
        ours[name] for name in ("rows status=ok", "rows status=failed", "captions origin=model", "requests", "problems")
    )
    assert ours["cost_usd"] > 0
    assert 0 < ours["latency_s quantile=p50"] <= ours["latency_s quantile=max"]
    assert abs(time.time() - ours["ended_at_s"]) < 600
    ended = [json.loads(line) for line in lineage.read_text().splitlines()]
    assert "caption_images.merge" in {event["job"]["name"] for event in ended if event["eventType"] == "COMPLETE"}
    texts = dict(notices)
    assert "should have ended by" in texts["caption_images is late"]
    assert "OpenAI rejects the key" in texts["caption_images is red"]
    assert [("asset_triggered", "failed"), ("asset_triggered", "success"), ("scheduled", "success")] == sorted(
        runs_seen(tmp_path)
    )


def collect(notices: list[tuple[str, str]], bucket: TellingBucket) -> list[tuple[str, str]]:
    """Add what the topic told since; return all."""
    notices += bucket.notices()
    return notices


def runs_seen(folder: Path) -> list[tuple[str, str]]:
    """Return type and state of all runs, after Airflow has stopped."""
    with sqlite3.connect(folder / "airflow" / "airflow.db") as database:
        return database.execute("SELECT run_type, state FROM dag_run").fetchall()
