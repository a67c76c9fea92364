"""### train_hint_model

Trains the hint model on classes of your own, as a process beside the worker, and registers it in MLflow; the alias
`champion` goes to it only if it is better than the present champion on pictures that neither has learnt from.

- **Data**: a folder with a sub-folder of pictures for each class, the same in S3, or `results`: pictures that
  `IMAGE_RESULTS` knows, with a csv of labels. A broken file is reported, not fatal.
- **Safe to run again.** A training that was killed goes on from its last epoch.
- **It changes no run by itself**: `image-analyzer model use champion` chooses the model of the next nightly runs.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from image_analyzer.settings import PROJECT_ROOT
from image_analyzer.settings import settings as read_settings
from image_analyzer_airflow import RetryByKind
from image_analyzer_processes import run_process
from image_analyzer_telling import failure_notifiers

SETTINGS = read_settings()

PARAMS = {
    "data": Param(SETTINGS.train_data, type="string", description="Folder, `s3://` prefix, or `results`"),
    "labels": Param("", type="string", description="With `results`: csv with columns label and sha256 or image_uri"),
    "name": Param(SETTINGS.train_name, type="string", pattern="^[A-Za-z0-9_-]+$", description="What the model is for"),
    "seed": Param(1, type="integer", description="Of split, shuffling and augmentation"),
    "batch": Param(32, type="integer", minimum=1, description="Pictures at once; fewer take less memory"),
    "head_epochs": Param(20, type="integer", minimum=1, description="At most so many, the head alone"),
    "top_epochs": Param(15, type="integer", minimum=0, description="At most so many, with the top blocks"),
    "weights": Param("imagenet", type="string", description="`imagenet`, or a file of MobileNetV2 weights"),
}


@dag(
    schedule=CronTriggerTimetable(SETTINGS.train_cron, timezone="UTC") if SETTINGS.train_cron else None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": "image-analyzer",
        "retries": 2,
        "retry_delay": timedelta(seconds=SETTINGS.retry_delay_s),
        "retry_policy": RetryByKind(),
        "on_failure_callback": failure_notifiers(SETTINGS),
        "execution_timeout": timedelta(hours=12),
    },
    params=PARAMS,
    tags=["images", "training"],
    doc_md=__doc__,
)
def train_hint_model() -> None:
    """Wire the one task."""

    @task(pool="training", queue=SETTINGS.train_queue, multiple_outputs=False)
    def train() -> dict[str, Any]:
        options = {name: str(value) for name, value in get_current_context()["params"].items() if value != ""}
        data = options.pop("data", "")
        named = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        script = str(PROJECT_ROOT / "models" / "train.py")
        outcome: dict[str, Any] = json.loads(run_process([sys.executable, script, "--leash", *named, "--", data]))
        return outcome

    train()


train_hint_model()
