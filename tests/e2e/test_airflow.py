"""The whole DAG under Airflow on the embedded stack: the same DAG, SQL and clients as production."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import SCREENSHOTS, TALL, browser, look_at
from conftest import Night, paint, photograph
from pipeline import Pipeline, numbered
from playwright.sync_api import Browser
from secrets_planted import PLANTED, SNOWFLAKE_PASSWORD, leaks
from test_training import COLOURS, paint_noise, save_seeing_weights

from image_analyzer.clients.mlflow_tracker import MlflowTracker
from image_analyzer.errors import FatalError
from image_analyzer.local.airflow import LocalAirflow
from image_analyzer.local.openai_control import API_KEY
from image_analyzer.local.stack import SECRET_KEY, control_openai

pytestmark = pytest.mark.e2e
__all__ = ["browser"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An Airflow home, set up once for this file. Whatever ran in it, green or red, no log and no database holds a secret."""
    folder = tmp_path_factory.mktemp("airflow")
    LocalAirflow(folder, {}).set_up()
    yield folder
    assert [] == leaks([folder])


class AirflowNight(Pipeline):
    """A night that Airflow runs."""

    def __init__(self, night: Night, home: Path) -> None:
        super().__init__(night)
        self.home, self.log = home, home / f"{night.environment['SNOWFLAKE_SCHEMA']}.log"
        connection = json.loads(night.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        connection |= {"schema": night.environment["SNOWFLAKE_SCHEMA"], "password": SNOWFLAKE_PASSWORD}
        # The DAGs do not change while a live Airflow runs: looking at them every half minute only takes its processors.
        night.environment.update({**PLANTED, "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600"})
        night.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"] = json.dumps(connection)
        self.airflow = LocalAirflow(home, night.environment)

    def run_dag(self, **params: Any) -> dict[str, set[str]]:
        """Run the DAG once; return the states of its tasks by task id. A red run raises FatalError."""
        try:
            for _ in self.airflow.test_dag(json.dumps(params), self.log):
                pass
        finally:
            self.states = self._states()
        return self.states

    def _states(self) -> dict[str, set[str]]:
        with sqlite3.connect(self.home / "airflow.db") as database:
            rows = database.execute(
                "SELECT task_id, state FROM task_instance WHERE run_id ="
                " (SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1)"
            ).fetchall()
        states: dict[str, set[str]] = {}
        for task_id, state in rows:
            states.setdefault(task_id, set()).add(state)
        return states


@pytest.fixture
def make_airflow_night(make_night: Callable[..., Night], home: Path) -> Callable[..., AirflowNight]:
    """Make a night that Airflow runs; failed tasks are tried again at once."""
    return lambda **changes: AirflowNight(make_night(**{"RETRY_DELAY_S": "0", "BATCH_SIZE": "2", **changes}), home)


def test_two_nights(make_airflow_night: Callable[..., AirflowNight]) -> None:
    """A night of several batches with a bad file and a copy is green; the next finds nothing, calls nobody, changes no row."""
    night = make_airflow_night(CAPTION_LANGUAGES="en,fr")
    cat = photograph("chelsea.png")
    night.land(cat__jpg=cat, copy__jpg=cat, red__jpg=paint("red"), bad__jpg=cat[:2000], drawing__svg=b"<svg/>")

    assert {("success",)} == {tuple(states) for states in night.run_dag().values()}
    before = night.rows()
    assert {"cat.jpg": "ok", "copy.jpg": "ok", "red.jpg": "ok", "bad.jpg": "failed", "drawing.svg": "skipped"} == {
        name: row["STATUS"] for name, row in before.items()
    }
    assert [["en", "fr"]] * 2 == [call["languages"] for call in night.night.calls()]
    log = night.log.read_text()
    assert not [
        secret for secret in (API_KEY, SECRET_KEY, "data:image", before["cat.jpg"]["GPT_SUMMARY"]) if secret in log
    ]

    states = night.run_dag()

    assert ({"skipped"}, {"skipped"}, {"success"}) == (states["batch.caption"], states["merge"], states["report"])
    assert (before, 2) == (night.rows(), len(night.night.calls()))


def test_a_red_run_saves_what_it_can(make_airflow_night: Callable[..., AirflowNight]) -> None:
    """The key is revoked half-way: the run is red after the paid captions were merged; the next pays for the rest only."""
    night = make_airflow_night(OPENAI_CONCURRENCY="1", OPENAI_LANGUAGES_PER_CALL="1")
    night.land(**numbered(6))
    night.night.order({"kind": "invalid_key", "times": 100, "language": "fr"})

    with pytest.raises(FatalError):
        night.run_dag(languages=["en", "fr"])

    assert ({"failed"}, {"success"}, {"failed"}) == tuple(night.states[t] for t in ("batch.caption", "merge", "report"))
    rows = [*night.rows("en").values(), *night.rows("fr").values()]
    assert 12 == len(rows)
    saved = Counter(row["STATUS"] for row in rows)
    assert {"ok", "pending"} == set(saved)
    paid = sum(not call["fault"] for call in night.night.calls())
    assert saved["ok"] == paid

    control_openai(night.night.base_url, "reset", {})
    night.run_dag(languages=["en", "fr"])

    assert 12 - paid == len(night.night.calls())
    assert {"ok"} == {row["STATUS"] for language in ("en", "fr") for row in night.rows(language).values()}


def test_every_batch_fails_and_nothing_is_lost(make_airflow_night: Callable[..., AirflowNight]) -> None:
    """The server is down for the whole night: retries are used up, every picture is a row, the run is red."""
    night = make_airflow_night(OPENAI_MAX_ATTEMPTS="1")
    night.land(**numbered(3))
    night.night.order({"kind": "server_error", "times": 10_000})

    with pytest.raises(FatalError):
        night.run_dag()

    assert ({"failed"}, {"success"}, {"success"}, {"failed"}) == tuple(
        night.states[t] for t in ("batch.caption", "merge", "check", "report")
    )
    assert {"caption_unavailable"} == {row["ERROR_CODE"] for row in night.rows().values()}
    assert 3 == len(night.rows())
    assert 3 * 6 == len(night.night.calls())  # one try and five retries of each, no more


def test_parameters_of_a_manual_run(make_airflow_night: Callable[..., AirflowNight]) -> None:
    """A dry run plans and does nothing else; a run for metadata asks for no caption, one to reprocess asks for what it left."""
    night = make_airflow_night()
    night.land(**numbered(3))

    night.run_dag(dry_run=True)
    assert {} == night.rows()
    assert '"images":3' in night.log.read_text()

    night.run_dag(steps="metadata", limit=2)
    assert [("pending", "off")] * 2 == [(row["STATUS"], row["HINT_MODEL"]) for row in night.rows().values()]
    assert [] == night.night.calls()

    night.run_dag(reprocess=["caption"])
    assert ["ok", "ok"] == [row["STATUS"] for row in night.rows().values()]


def test_a_live_scheduler_defers_and_resumes(make_airflow_night: Callable[..., AirflowNight], tmp_path: Path) -> None:
    """Under scheduler and triggerer, a run waits without a slot for a picture, and then for its batch job.

    Clearing the task leaves the job alone; ending the run cancels it; the next run lands what it had done and pays nothing.
    """
    from image_analyzer.local.stack import free_ports

    night = make_airflow_night(
        SENSE_TIMEOUT_S="120", SENSE_POLL_S="1", AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        CAPTION_MODE="batch", BATCH_POLL_S="1",
    )  # fmt: skip
    night.night.order({"kind": "batch_slow", "done": 1})
    (port,) = free_ports(1)
    airflow = LocalAirflow(tmp_path / "airflow", night.night.environment, port)
    airflow.set_up()
    airflow.start()
    try:
        night.home = tmp_path / "airflow"
        # Unpaused, the DAG runs for the last date of its schedule.
        _wait_for(lambda: night._states().get("sense") == {"deferred"})
        night.land(late__jpg=paint("red"))
        _wait_for(lambda: night._states().get("batch.caption") == {"deferred"})
        (run,) = _api(airflow, "GET", "dags/caption_images/dagRuns")["dag_runs"]
        address = f"dags/caption_images/dagRuns/{urllib.parse.quote(run['dag_run_id'])}"
        started = _caption_tries(airflow, address)
        _api(airflow, "POST", "dags/caption_images/clearTaskInstances",
             {"dry_run": False, "dag_run_id": run["dag_run_id"], "task_ids": ["batch.caption"], "only_failed": False,
              "only_running": False})  # fmt: skip
        _wait_for(lambda: _caption_tries(airflow, address) > started)
        _wait_for(lambda: night._states().get("batch.caption") == {"deferred"})
        # A trigger that no triggerer has taken up yet is dropped without a word; then the next run lands the job.
        _wait_for(lambda: _is_watched(night))
        cleared = _job_states(night)
        _api(airflow, "PATCH", address, {"state": "failed"})
        _wait_for(lambda: _job_states(night) == ["cancelled"])
        _start_run(airflow, night, "2026-11-01T02:00:00")
        _wait_for(lambda: night._states().get("report") == {"success"})
    finally:
        airflow.stop()

    assert ["in_progress"] == cleared
    assert {"late.jpg": "ok"} == {name: row["STATUS"] for name, row in night.rows().items()}
    assert ["batch"] == [call["tier"] for call in night.night.calls()]
    assert not airflow.is_running()


def test_results_in_the_ui(make_airflow_night: Callable[..., AirflowNight], home: Path, browser: Browser) -> None:
    """Who is signed in to Airflow sees the gallery, the runs, a run's report and its contact sheet; nobody else does."""
    from image_analyzer.local.stack import free_ports

    passwords = home / "passwords.json"
    passwords.write_text('{"ada": "a-password"}')
    night = make_airflow_night(
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="False",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="ada:viewer",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
    )
    night.land(red__jpg=paint("red"), bad__jpg=photograph("chelsea.png")[:2000])
    night.run_dag()
    caption = night.rows()["red.jpg"]["GPT_SUMMARY"]
    (port,) = free_ports(1)
    airflow = LocalAirflow(home, night.night.environment, port)
    airflow.start()
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{airflow.address()}/image-analyzer/results", timeout=30)
        (run_id,) = {row["RUN_ID"] for row in night.rows().values()}
        page = browser.new_context(viewport=TALL).new_page()
        page.set_default_timeout(60_000)
        page.goto(airflow.address())
        page.get_by_label("Username").fill("ada")
        page.get_by_label("Password").fill("a-password")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{airflow.address()}/**")
        page.get_by_role("link", name="Dags").first.wait_for()
        page.goto(f"{airflow.address()}/plugin/image_results")
        view = page.frame_locator("iframe")
        view.get_by_role("img", name=caption).wait_for()
        page.screenshot(path=SCREENSHOTS / "airflow-results.png")
        view.get_by_role("link", name=run_id).click()
        view.get_by_text("Pictures: 2 · batches: 1").wait_for()

        page.goto(f"{airflow.address()}/dags/caption_images/runs/{urllib.parse.quote(run_id)}")
        page.get_by_role("link", name="Results").last.click()
        view.get_by_role("link", name="Contact sheet").wait_for()
        page.screenshot(path=SCREENSHOTS / "airflow-run.png")
        view.get_by_role("link", name="Contact sheet").click()
        view.get_by_role("img", name=caption).wait_for()
        page.goto(f"{airflow.address()}/image-analyzer/results")
        look_at(page, "airflow-results-page")
        page.goto(f"{airflow.address()}/image-analyzer/runs/{urllib.parse.quote(run_id)}")
        look_at(page, "airflow-run-page")
    finally:
        airflow.stop()


def _start_run(airflow: LocalAirflow, night: AirflowNight, date: str) -> None:
    airflow.run(["backfill", "create", "--dag-id", "caption_images", "--from-date", date, "--to-date", date], night.log)


def _api(airflow: LocalAirflow, method: str, path: str, payload: dict[str, Any] | None = None) -> Any:
    """Ask Airflow's API as its UI does."""
    with urllib.request.urlopen(f"{airflow.address()}/auth/token", timeout=30) as answer:
        token = json.load(answer)["access_token"]
    request = urllib.request.Request(
        f"{airflow.address()}/api/v2/{path}",
        method=method,
        data=json.dumps(payload).encode() if payload else None,
        headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _caption_tries(airflow: LocalAirflow, address: str) -> int:
    found = _api(airflow, "GET", f"{address}/taskInstances")["task_instances"]
    return sum(ti["try_number"] for ti in found if ti["task_id"] == "batch.caption")


def _is_watched(night: AirflowNight) -> bool:
    """Tell whether a triggerer runs the trigger by now: it has looked at the job since the task was deferred."""
    with sqlite3.connect(night.home / "airflow.db") as database:
        taken = database.execute("SELECT COUNT(*) FROM trigger WHERE triggerer_id IS NOT NULL").fetchone()[0]
    logs = (night.home / "logs").rglob("task_id=batch.caption/**/attempt=2.log.trigger.*")
    return bool(taken) and any("HTTP Request: GET" in log.read_text() for log in logs)


def _job_states(night: AirflowNight) -> list[str]:
    return [job["status"] for job in control_openai(night.night.base_url, "batches")["jobs"]]


def _wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)


def test_a_model_is_trained_as_a_process_of_its_own(
    make_airflow_night: Callable[..., AirflowNight], tmp_path: Path
) -> None:
    """Pictures in S3, read by way of Airflow's connection; the outcome is the task's result, the model registered."""
    without = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_ENDPOINT_URL"), "")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    places = {"MODELS_DIR": str(tmp_path / "models"), "LOCAL_STACK_DIR": str(tmp_path), "MLFLOW_TRACKING_URI": uri}
    night = make_airflow_night()
    weights = tmp_path / "base.weights.h5"
    save_seeing_weights(weights)
    for label, colour in COLOURS.items():
        for number in range(12):
            night.land(**{f"{label}/{number}__jpg": paint_noise(colour, number)})
    night.airflow.environment.update({**without, **places})

    data = night.uri("")
    wanted = {"data": data, "name": "colours", "weights": str(weights), "head_epochs": 1, "top_epochs": 0, "batch": 8}
    list(night.airflow.test_dag(json.dumps(wanted), night.log, "train_hint_model"))

    champion = MlflowTracker(uri, None).champion("colours")
    assert champion is not None
    log = night.log.read_text()
    assert f"models/{champion.folder_name}, MLflow run {champion.run_id}" in log
    assert (tmp_path / "models" / champion.folder_name / "model.tflite").exists()
    assert SECRET_KEY not in log


def test_captions_are_evaluated_where_there_is_a_key(
    make_airflow_night: Callable[..., AirflowNight], tmp_path: Path
) -> None:
    """The key of Airflow's connection is enough to ask the model; the recorded champion is met, and MLflow has it."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    night = make_airflow_night()
    key = json.dumps({"conn_type": "openai", "password": API_KEY, "host": night.night.environment["OPENAI_BASE_URL"]})
    night.airflow.environment.update({
        "MLFLOW_TRACKING_URI": uri, "OPENAI_API_KEY": "", "OPENAI_BASE_URL": "", "AIRFLOW_CONN_OPENAI_DEFAULT": key,
    })  # fmt: skip

    list(night.airflow.test_dag("{}", night.log, "evaluate_captions"))

    assert 11 == len(night.night.calls())
    client = MlflowTracker(uri, None)._client
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "captions"])
    assert "passed" == run.data.tags["gate"]
    assert API_KEY not in night.log.read_text()
