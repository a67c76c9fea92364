"""### evaluate_captions

Measures the caption contract on judged answers, and golden captions against the champion's figures; logs to MLflow. It is
red when compliance, false refusals or cost are worse than the champion beyond the margins, or cannot be told.

- **`live`**: `auto` asks the model where there is a key (some cents), and judges recorded answers where there is none.
- **It changes nothing.** Who becomes champion a person decides: `image-analyzer evaluate --live --accept`.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from image_analyzer.settings import CaptionBackend
from image_analyzer.settings import settings as read_settings
from image_analyzer_airflow import RetryByKind, airflow_errors, make_settings
from image_analyzer_processes import run_process
from image_analyzer_telling import failure_notifiers

SETTINGS = read_settings()


@dag(
    schedule=CronTriggerTimetable(SETTINGS.evaluate_cron, timezone="UTC") if SETTINGS.evaluate_cron else None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "image-analyzer",
        "retries": 1,
        "retry_delay": timedelta(seconds=SETTINGS.retry_delay_s),
        "retry_policy": RetryByKind(),
        "on_failure_callback": failure_notifiers(SETTINGS),
        "execution_timeout": timedelta(hours=1),
    },
    params={"live": Param("auto", enum=["auto", "yes", "no"], description="Ask the model for golden captions; paid")},
    tags=["images", "captions"],
    doc_md=__doc__,
)
def evaluate_captions() -> None:
    """Wire the one task."""

    @task(pool="openai", queue=SETTINGS.train_queue)
    def evaluate() -> None:
        live = get_current_context()["params"]["live"]
        with airflow_errors():
            asks = live == "yes" or (live == "auto" and make_settings().backend is CaptionBackend.OPENAI)
        command = str(Path(sys.executable).parent / "image-analyzer")
        # The report goes to MLflow; beside the project nothing can be written where it is part of an image.
        with tempfile.TemporaryDirectory() as scratch:
            run_process([command, "evaluate", "--leash", "--track", f"--out={scratch}", *(["--live"] if asks else [])])

    evaluate()


evaluate_captions()
