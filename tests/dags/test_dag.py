"""The DAG as Airflow sees it, and the rules every task keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from image_analyzer.errors import ConfigurationError, FatalError, QualityError, RetryableError
from image_analyzer.settings import PROJECT_ROOT


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The parsed DAGs."""
    environment = {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_ROOT / "dags"),
        "S3_BUCKET": "images",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=str(PROJECT_ROOT / "dags"))
        assert {} == bag.import_errors
        yield dict(bag.dags)


@pytest.fixture
def dag(dags: dict[str, Any]) -> Any:
    """The nightly run."""
    return dags["caption_images"]


def test_these_are_the_dags(dags: dict[str, Any]) -> None:
    """Each has words for people, and starts no run of the past when it is unpaused."""
    assert {"caption_images", "train_hint_model", "evaluate_captions"} == set(dags)
    for one in dags.values():
        assert (1, False) == (one.max_active_runs, one.catchup), one.dag_id
        assert one.doc_md
        assert one.tags


def test_the_edges_are_the_designs(dag: Any) -> None:
    """Sense, discover, the mapped group, merge, check, report: these tasks and these edges."""
    assert {
        "sense": {"discover"},
        "discover": {"batch.prepare"},
        "batch.prepare": {"batch.hint"},
        "batch.hint": {"batch.caption"},
        "batch.caption": {"merge"},
        "merge": {"check", "report"},
        "check": {"report"},
        "report": set(),
    } == {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}


def test_the_nightly_run_is_nightly_and_others_start_by_hand(dags: dict[str, Any]) -> None:
    """A schedule that nobody set trains nothing and asks no model."""
    assert "0 2 * * *" in repr(dags["caption_images"].timetable)
    assert [False, False] == [
        dags[name].timetable.can_be_scheduled for name in ("train_hint_model", "evaluate_captions")
    ]


def test_every_task_has_a_timeout_retries_and_a_policy(dags: dict[str, Any]) -> None:
    """No task hangs for ever, none is tried without end."""
    for task in (task for one in dags.values() for task in one.tasks):
        assert isinstance(task.execution_timeout, timedelta), task.task_id
        assert 1 <= task.retries <= 5, task.task_id
        assert type(task.retry_policy).__name__ == "RetryByKind", task.task_id
        assert task.owner == "image-analyzer"


def test_pools_that_are_used_are_declared(dags: dict[str, Any]) -> None:
    """A task in a pool that set-up does not import would never start."""
    declared = set(json.loads((PROJECT_ROOT / "include" / "pools.json").read_text())) | {"default_pool"}

    assert {task.pool for one in dags.values() for task in one.tasks} == declared
    assert {"hint_model", "openai"} < declared


def test_the_end_runs_whatever_happened(dag: Any) -> None:
    """Merge and report wait for all and need no success: what can be saved is saved, and the run says what failed."""
    rules = {task.task_id: str(task.trigger_rule.value) for task in dag.tasks}

    assert (rules["merge"], rules["report"]) == ("all_done", "all_done")
    assert [task.task_id for task in dag.tasks if task.outlets] == ["merge"]
    assert [task.task_id for task in dag.leaves] == ["report"]


def test_parameters_are_typed(dag: Any) -> None:
    """A wrong parameter is refused when the run is triggered."""
    params = dag.params
    assert {
        "prefix", "languages", "limit", "steps", "dry_run", "canaries", "reprocess", "from_day", "to_day",
    } == set(params)  # fmt: skip
    for name, wrong in [("limit", 0), ("steps", "everything"), ("dry_run", "yes"), ("languages", "en")]:
        with pytest.raises(Exception, match="Failed validating"):
            params.get_param(name).resolve(wrong)


def test_the_dag_survives_serialisation(dag: Any) -> None:
    """The scheduler works on the serialised form, which must be complete."""
    from airflow.serialization.serialized_objects import DagSerialization

    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))

    assert {task.task_id for task in dag.tasks} == set(again.task_dict)


def test_parsing_loads_nothing_heavy(tmp_path: Path) -> None:
    """Parsing happens every half minute: no model, no client of the outside is imported for it."""
    code = (
        "import sys; from airflow.dag_processing.dagbag import DagBag; bag = DagBag(sys.argv[1]); assert not bag.import_errors, "
        "bag.import_errors; print([m for m in ('tensorflow', 'openai', 'snowflake.connector', 'boto3', 'ai_edge_litert', "
        "'PIL', 'py3langid', 'icu4py') if m in sys.modules])"
    )
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "S3_BUCKET": "images"}
    output = subprocess.check_output(
        [sys.executable, "-c", code, str(PROJECT_ROOT / "dags")], env=environment, text=True
    )

    assert output.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "action", "delay"),
    [
        (RetryableError("later", retry_after_s=200), "retry", timedelta(seconds=200)),
        (RetryableError("soon", retry_after_s=0), "retry", timedelta(seconds=5)),
        (RetryableError("some time"), "retry", None),
        (FatalError("no"), "fail", None),
        (ConfigurationError("no"), "fail", None),
        (QualityError("no"), "fail", None),
        (RuntimeError("a bug"), "default", None),
    ],
)
def test_retries_follow_the_kind_of_error(dag: Any, error: Exception, action: str, delay: timedelta | None) -> None:
    """What can be mended by time is retried after the pause that was asked for; the rest ends at once."""
    decision = dag.get_task("merge").retry_policy.evaluate(error, 1, 3)

    assert (action, delay) == (decision.action.value, decision.retry_delay)


def test_errors_no_retry_can_mend_fail_the_task_at_once(dag: Any) -> None:
    """They become Airflow's own way to say so, with the message; retryable ones pass through."""
    from airflow.sdk.exceptions import AirflowFailException

    from image_analyzer_airflow import airflow_errors

    with pytest.raises(AirflowFailException, match="check the key"), airflow_errors():
        raise FatalError("check the key")
    with pytest.raises(RetryableError), airflow_errors():
        raise RetryableError("later")


def test_a_run_without_a_plan_is_red_in_the_metrics(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alert on the last run's problems hears of a night in which nothing could be listed, and of no dry run."""
    from airflow.sdk.exceptions import AirflowFailException
    from airflow.sdk.observability import stats

    sent: dict[str, float] = {}
    report = dag.get_task("report").python_callable
    nothing = SimpleNamespace(xcom_pull=lambda **_: None)
    params = {"dry_run": True}
    monkeypatch.setitem(report.__globals__, "get_current_context", lambda: {"ti": nothing, "params": params})
    monkeypatch.setattr(stats, "gauge", lambda name, value, **_: sent.update({name: value}))

    with pytest.raises(AirflowFailException, match="there is no plan"):
        report()
    assert {} == sent
    params["dry_run"] = False
    with pytest.raises(AirflowFailException, match="there is no plan"):
        report()
    assert 1 == sent["image_analyzer.run.problems"]
    assert abs(time.time() - sent["image_analyzer.run.ended_at_s"]) < 60


def test_nobody_is_told_unless_somebody_is_named(dag: Any) -> None:
    """A callback that does nothing would have the DAG parsed again after each red run."""
    assert not dag.has_on_failure_callback
    assert not dag.get_task("report").has_on_failure_callback


def test_settings_add_to_the_dag(tmp_path: Path) -> None:
    """With a queue set it has both: the night, and an asset that a watcher of the queue updates.

    With a topic set, that hears of a red run, of one that Airflow ends and of a late one.
    """
    script = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag(dag_folder={str(PROJECT_ROOT / 'dags' / 'caption_images.py')!r})\n"
        "assert not bag.import_errors, bag.import_errors\n"
        "dag = bag.dags['caption_images']\n"
        "counts = [len(dag.get_task('report').on_failure_callback), len(dag.on_failure_callback), len(dag.deadline)]\n"
        "timetable = dag.timetable\n"
        "asset = timetable.asset_condition\n"
        "(watcher,) = asset.watchers\n"
        "print(type(timetable).__name__, repr(timetable.timetable), asset.name, watcher.trigger.serialize(), counts)\n"
    )
    environment = {
        **os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "S3_BUCKET": "images", "EVENTS_QUEUE_URL": "https://sqs/1/q",
        "NOTIFY_SNS_TOPIC": "arn:aws:sns:us-east-1:1:t",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr[-2_000:]
    said = done.stdout.splitlines()[-1]
    assert said.startswith("AssetOrTimeSchedule")
    assert all(part in said for part in ("0 2 * * *", "new_images", "https://sqs/1/q", "'incoming/'", "[1, 1, 1]"))
