"""What is told, and of what: the texts of notices as Airflow's notifiers render them."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.amazon.aws.notifications.sns import SnsNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG

from image_analyzer.settings import Settings, load_settings
from image_analyzer_telling import failure_notifiers, time_out_notifiers


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be sent; the senders are Airflow's."""
    told: list[str] = []
    monkeypatch.setattr(SnsNotifier, "notify", lambda self, _: told.append(f"{self.subject}: {self.message}"))
    monkeypatch.setattr(SmtpNotifier, "notify", lambda self, _: told.append(f"{self.subject}: {self.html_content}"))
    return told


@pytest.fixture
def settings() -> Settings:
    """A topic and an address."""
    return load_settings(notify_sns_topic="arn:aws:sns:us-east-1:1:t", notify_email="ada@example.org")


def context(**more: Any) -> dict[str, Any]:
    """Return what Airflow hands a callback."""
    dag = DAG("caption_images", schedule=None, dagrun_timeout=timedelta(hours=20))
    task = SimpleNamespace(dag_id="caption_images", task_id="report", run_id="r1", log_url="http://log")
    return {"dag": dag, "run_id": "r1", "ti": task, **more}


def test_a_run_that_airflow_ends_is_told_of(settings: Settings, told: list[str]) -> None:
    """Of one whose tasks fail `report` tells, so that one notice comes."""
    for reason in ("task_failure", "timed_out"):
        for callback in time_out_notifiers(settings) or ():
            callback(context(reason=reason))

    assert 2 == len(told)
    assert all(re.match("caption_images was ended: (<pre>)?Run r1 took longer than 20:00:00", text) for text in told)


def test_a_reason_is_text_in_a_mail(settings: Settings, told: list[str]) -> None:
    """What an error quotes is no HTML; Airflow hands on no error of a task that was killed."""
    for more in ({"exception": RuntimeError("<img src=x>")}, {"exception": None}, {}):
        for callback in failure_notifiers(settings):
            callback(context(**more))  # type: ignore[operator]

    assert "report: <img src=x>\n" in told[0]
    assert "report: &lt;img src=x&gt;\n" in told[1]
    assert [True] * 4 == ["report: its process was gone\n" in text for text in told[2:]]


def test_nobody_is_told_where_nobody_is_named() -> None:
    """It is off until it is set up."""
    assert ([], None) == (failure_notifiers(load_settings()), time_out_notifiers(load_settings()))
