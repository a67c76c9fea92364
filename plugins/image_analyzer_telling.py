"""Tells the world around Airflow how a run went: metrics by Airflow's own exporter, notices by Airflow's notifiers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.sdk.bases.notifier import BaseNotifier
from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference
from airflow.sdk.observability import stats

from image_analyzer.reports import RunReport
from image_analyzer.settings import Settings

_FAILED = "{{ ti.dag_id }} is red"
_WHY = """Run {{ ti.run_id }}, task {{ ti.task_id }}: {{ exception | default('its process was gone', true) }}

What to do: docs/runbook.md. Log: {{ ti.log_url }}"""
_ENDED = "{{ dag.dag_id }} was ended"
_AFTER = """Run {{ run_id }} took longer than {{ dag.dagrun_timeout }} and Airflow ended it.

What to do: docs/runbook.md."""
_LATE = "{{ dag_run.dag_id }} is late"
_SINCE = "Run {{ dag_run.dag_run_id }} should have ended by {{ deadline.deadline_time }} and still runs."


def send_metrics(report: RunReport | None) -> None:
    """Send the numbers of a run to where `[metrics]` of Airflow's configuration says; nowhere if it says nothing.

    Args:
        report: None of a run that failed before it had a plan.
    """
    # Rules and their dictionaries: not while every DAG is parsed.
    from image_analyzer.metrics import make_gauges, make_gauges_without_plan

    now = time.time()
    for gauge in make_gauges(report, now) if report else make_gauges_without_plan(now):
        stats.gauge(gauge.name, gauge.value, tags=gauge.tags)


def failure_notifiers(settings: Settings) -> Sequence[BaseNotifier]:
    """Return who is told of a red task, for `on_failure_callback`: nobody if nobody is named."""
    return [notifier(**arguments) for notifier, arguments in _notices(settings, _FAILED, _WHY)]


def time_out_notifiers(settings: Settings) -> Sequence[Callable[[Any], None]] | None:
    """Return who is told that Airflow ended a run at its `dagrun_timeout`, for `on_failure_callback` of a DAG.

    No task fails then that could tell. Of a run whose tasks fail, one of them tells. It is None if nobody is to be told: for
    an empty list Airflow would read the DAG again after each red run.
    """
    return [
        partial(_tell_if_timed_out, notifier(**arguments)) for notifier, arguments in _notices(settings, _ENDED, _AFTER)
    ] or None


def _tell_if_timed_out(notifier: BaseNotifier, context: Any) -> None:
    if context["reason"] == "timed_out":
        notifier(context)


def late_alerts(settings: Settings, after: timedelta) -> list[DeadlineAlert] | None:
    """Return alerts for a run that has not ended so long after it was queued; None if nobody is to be told.

    They are sent by the triggerer, whatever hangs.
    """
    return [
        DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, after, AsyncCallback(notifier, arguments))
        for notifier, arguments in _notices(settings, _LATE, _SINCE)
    ] or None


def _notices(settings: Settings, subject: str, text: str) -> list[tuple[type[BaseNotifier], dict[str, Any]]]:
    """Return the notifiers that the settings name, with their arguments."""
    found: list[tuple[type[BaseNotifier], dict[str, Any]]] = []
    if settings.notify_sns_topic:
        from airflow.providers.amazon.aws.notifications.sns import SnsNotifier  # boto3: not while every DAG is parsed

        topic = {"aws_conn_id": settings.aws_conn_id, "target_arn": settings.notify_sns_topic}
        found.append((SnsNotifier, {**topic, "region_name": settings.aws_region, "subject": subject, "message": text}))
    if settings.notify_email:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        html = f"<pre>{{% autoescape true %}}{text}{{% endautoescape %}}</pre>"
        found.append((SmtpNotifier, {"to": list(settings.notify_email), "subject": subject, "html_content": html}))
    return found
