"""### caption_images

Senses new pictures in S3, reads their metadata, gets label hints and captions, MERGEs them into `IMAGE_RESULTS`,
checks what it wrote and reports.

`sense -> discover -> per batch [prepare -> hint -> caption] -> merge -> check -> report`

- **Safe to run again at any time.** What is done is read from `IMAGE_RESULTS`; a caption that was paid for is never asked
  for again, whichever task is cleared or killed.
- **A bad picture is a row, a bad run is red.** `report` fails the run after everything that could be saved was saved;
  its message says what to do.
- **A night without new pictures** makes no caption call, changes no row and is green.
- **At once**, too: where S3 tells the queue `EVENTS_QUEUE_URL` of new objects, an upload starts a run.
- **By hand**: trigger with parameters. `dry_run` shows the plan and its cost and does nothing else; `reprocess` runs rows
  of `IMAGE_RESULTS` again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    Asset,
    AssetOrTimeSchedule,
    AssetWatcher,
    CronTriggerTimetable,
    Param,
    TriggerRule,
    dag,
    get_current_context,
    task,
    task_group,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from image_analyzer.languages import supported_languages
from image_analyzer.records import Plan, Reason, RunRequest, Steps
from image_analyzer.settings import CaptionMode
from image_analyzer.settings import settings as read_settings
from image_analyzer_airflow import (
    RetryByKind,
    airflow_errors,
    make_settings,
    make_store,
    make_warehouse,
)
from image_analyzer_captioning import CaptionOperator
from image_analyzer_events import NewObjectsTrigger
from image_analyzer_sensing import NewObjectsSensor
from image_analyzer_telling import failure_notifiers, late_alerts, send_metrics, time_out_notifiers

SETTINGS = read_settings()
IMAGE_RESULTS = Asset("image_results")
# After it Airflow ends a run without merging: it must come after the patience with batch jobs.
BATCH_PATIENCE_S = SETTINGS.batch_patience_s if SETTINGS.caption_mode is CaptionMode.BATCH else 0
RUN_TIMEOUT = timedelta(hours=20) + timedelta(seconds=BATCH_PATIENCE_S)

A_DAY: dict[str, Any] = {"type": ["null", "string"], "format": "date"}
PARAMS = {
    "prefix": Param(SETTINGS.s3_prefix, type="string", description="Prefix to look under"),
    "languages": Param(
        list(SETTINGS.caption_languages),
        type="array",
        items={"type": "string"},
        examples=list(supported_languages()),
        description="BCP 47 codes",
    ),
    "limit": Param(None, type=["null", "integer"], minimum=1, description="At most so many pictures; empty for all"),
    "steps": Param(Steps.CAPTIONS.value, enum=[step.value for step in Steps], description="How far to go"),
    "canaries": Param(
        False, type="boolean", description="Also caption test pictures; a wrong answer makes the run red"
    ),
    "reprocess": Param(
        [],
        type="array",
        items={"type": "string", "enum": [reason.value for reason in Reason]},
        examples=[reason.value for reason in Reason],
        description="Run rows of IMAGE_RESULTS again for these reasons, instead of looking for new objects",
    ),
    "from_day": Param(None, **A_DAY, description="Only what was last changed in S3 on this day or later, UTC"),
    "to_day": Param(None, **A_DAY, description="Only what was last changed in S3 on this day or earlier, UTC"),
    "dry_run": Param(False, type="boolean", description="Plan only: show what would be done and what it may cost"),
}


REQUEST = "{{ make_request(run_id, params) }}"


def make_request(run_id: str, params: dict[str, Any]) -> str:
    """Return the run's request as JSON; called while templates are rendered."""
    return RunRequest(run_id=run_id, bucket=SETTINGS.s3_bucket, **params).model_dump_json()


def current_plan() -> Plan:
    """Return the plan that `discover` made.

    Raises:
        AirflowFailException: It made none. Not a skip: a run whose last task is skipped would be green.
    """
    ti = get_current_context()["ti"]
    header = ti.xcom_pull(task_ids="discover", key="plan")
    if header is None:
        raise AirflowFailException("there is no plan: see the log of `sense` and `discover`")
    return Plan.model_validate({**header, "batches": ti.xcom_pull(task_ids="discover") or []})


def plan_to_report() -> Plan:
    """Return the plan; that there is none is told to who watches the numbers of runs, too."""
    try:
        return current_plan()
    except AirflowFailException:
        if not get_current_context()["params"]["dry_run"]:
            send_metrics(None)
        raise


def make_schedule() -> CronTriggerTimetable | AssetOrTimeSchedule:
    """Return when runs start: by time, and where S3 tells of new objects, by that, too."""
    nightly = CronTriggerTimetable(SETTINGS.schedule_cron, timezone="UTC")
    if not SETTINGS.events_queue_url:
        return nightly
    trigger = NewObjectsTrigger(
        SETTINGS.events_queue_url, SETTINGS.s3_bucket, SETTINGS.s3_prefix, SETTINGS.events_gather_s
    )
    return AssetOrTimeSchedule(
        timetable=nightly, assets=Asset("new_images", watchers=[AssetWatcher(name="s3_events", trigger=trigger)])
    )


@dag(
    schedule=make_schedule(),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=RUN_TIMEOUT,
    on_failure_callback=time_out_notifiers(SETTINGS),
    deadline=late_alerts(SETTINGS, timedelta(seconds=SETTINGS.run_deadline_s + BATCH_PATIENCE_S)),
    default_args={
        "owner": "image-analyzer",
        "retries": 3,
        "retry_delay": timedelta(seconds=SETTINGS.retry_delay_s),
        "retry_policy": RetryByKind(),
        "execution_timeout": timedelta(minutes=30),
    },
    params=PARAMS,
    tags=["images", "captions"],
    doc_md=__doc__,
    user_defined_macros={"make_request": make_request},
)
def caption_images() -> None:
    """Wire the tasks."""
    sensed = NewObjectsSensor(
        task_id="sense",
        request=REQUEST,
        # By hand one wants an answer now; who was told of new objects need not wait for them.
        timeout_s="{{ " + str(SETTINGS.sense_timeout_s) + " if dag_run.run_type == 'scheduled' else 0 }}",
        poll_s=SETTINGS.sense_poll_s,
    )

    @task(multiple_outputs=False)
    def discover(new: bool, request: str) -> list[dict[str, Any]]:
        from airflow.configuration import conf

        from image_analyzer.steps import discover as step
        from image_analyzer.wiring import make_work_area, plan_options

        with airflow_errors():
            settings = make_settings()
            wanted = RunRequest.model_validate_json(request)
            options = plan_options(settings, most_batches=conf.getint("core", "max_map_length"))
            store, work = make_store(settings), make_work_area(settings)
            warehouse = make_warehouse(settings)
            plan = step.discover(store, warehouse, work, wanted, options) if new else step.empty_plan(wanted, options)
        header = plan.model_dump(mode="json", exclude={"batches"})
        get_current_context()["ti"].xcom_push(key="plan", value=header)
        return [] if plan.dry_run else [batch.model_dump() for batch in plan.batches]

    @task_group
    def batch(batch: dict[str, Any]) -> None:
        @task(execution_timeout=timedelta(hours=2), map_index_template="{{ batch_id }}")
        def prepare(batch: dict[str, Any]) -> str:
            from image_analyzer.steps.prepare import prepare as step
            from image_analyzer.wiring import prepare_options

            get_current_context()["batch_id"] = batch["batch_id"]
            with airflow_errors():
                settings = make_settings()
                step(make_store(settings), batch["uri"], prepare_options(settings))
            return str(batch["uri"])

        @task(execution_timeout=timedelta(hours=2), pool="hint_model", queue=SETTINGS.hint_queue)
        def hint(manifest_uri: str) -> str:
            from image_analyzer.steps.hint import hint as step
            from image_analyzer.wiring import make_hint_model

            with airflow_errors():
                settings = make_settings()
                step(make_store(settings), manifest_uri, *make_hint_model(settings))
            return manifest_uri

        CaptionOperator(
            task_id="caption",
            manifest_uri=hint(prepare(batch)),
            execution_timeout=timedelta(hours=6),
            pool="openai",
            retries=5,
        )

    @task(trigger_rule=TriggerRule.ALL_DONE, outlets=[IMAGE_RESULTS], multiple_outputs=False)
    def merge() -> dict[str, Any]:
        from image_analyzer.steps.merge import merge as step

        plan = current_plan()
        if not plan.batches:
            raise AirflowSkipException("nothing to merge")
        with airflow_errors():
            settings = make_settings()
            outcome = step(make_store(settings), make_warehouse(settings), plan)
        return outcome.model_dump(mode="json")

    @task(multiple_outputs=False)
    def check() -> list[dict[str, Any]]:
        from image_analyzer.steps.check import check as step

        with airflow_errors():
            outcomes = step(make_warehouse(make_settings()), str(get_current_context()["run_id"]))
        return [outcome.model_dump() for outcome in outcomes]

    @task(
        trigger_rule=TriggerRule.ALL_DONE,
        multiple_outputs=False,
        # Whatever makes a run red makes this task red, and its error says why.
        on_failure_callback=failure_notifiers(SETTINGS),
    )
    def report() -> dict[str, Any]:
        from image_analyzer.reports import MergeOutcome
        from image_analyzer.steps import report as step
        from image_analyzer.wiring import make_work_area

        plan, ti = plan_to_report(), get_current_context()["ti"]
        merged, checked = ti.xcom_pull(task_ids="merge"), ti.xcom_pull(task_ids="check")
        with airflow_errors():
            settings = make_settings()
            summary = step.report(
                make_store(settings),
                make_warehouse(settings),
                make_work_area(settings),
                plan,
                MergeOutcome.model_validate(merged) if merged else None,
                check_passed=checked is not None,
            )
            if not plan.dry_run:
                send_metrics(summary)
            step.raise_if_red(summary)
        return summary.model_dump(mode="json")

    batches = discover(sensed.output, REQUEST)
    done = batch.expand(batch=batches)
    batches >> done >> (merged := merge()) >> (checked := check())
    [merged, checked] >> report()


caption_images()
