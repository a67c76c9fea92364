"""The one place of assembly: builds clients and options from settings."""

from __future__ import annotations

import importlib.util
import logging
import ssl
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from image_analyzer.clients.event_queue import EventQueue, make_queue_client
from image_analyzer.clients.mlflow_tracker import MlflowTracker
from image_analyzer.clients.offline_describer import OfflineDescriber
from image_analyzer.clients.s3_store import S3Store, make_client
from image_analyzer.clients.snowflake_session import Connect, connect_arguments
from image_analyzer.clients.snowflake_warehouse import SnowflakeWarehouse
from image_analyzer.errors import ConfigurationError
from image_analyzer.ports import Captioner, HintModel, JobService, ObjectStore
from image_analyzer.prices import Price, find_price
from image_analyzer.settings import PROJECT_ROOT, CaptionBackend, CaptionMode, Settings
from image_analyzer.steps.asking import CaptionOptions
from image_analyzer.steps.budget import BudgetedCaptioner, Cap
from image_analyzer.steps.discover import PlanOptions
from image_analyzer.steps.jobfiles import Adopter
from image_analyzer.steps.jobs import BatchJobs, JobAdopter, JobOptions
from image_analyzer.steps.ledger import Ledger
from image_analyzer.steps.prepare import PrepareOptions
from image_analyzer.workarea import WorkArea, run_file_uri

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from snowflake.connector import SnowflakeConnection

    from image_analyzer.clients.openai_format import OpenAIFormat

log = logging.getLogger(__name__)
SHIPPED_MODELS = PROJECT_ROOT / "models"
IMAGENET_MODEL = "imagenet-mobilenet-v2"
_SQLITE = "sqlite:///"
_MOST_BATCHES = 1_000  # below Airflow's max_map_length of 1,024


def make_store(settings: Settings) -> S3Store:
    """Build the object store."""
    settings.need("s3_bucket")
    return S3Store(make_client(endpoint_url=settings.s3_endpoint_url, **_aws_access(settings)))


def make_events(settings: Settings, queue_url: str) -> EventQueue:
    """Build the queue into which S3 tells of new objects."""
    return EventQueue(make_queue_client(endpoint_url=settings.sqs_endpoint_url, **_aws_access(settings)), queue_url)


def _aws_access(settings: Settings) -> dict[str, Any]:
    return {
        "region": settings.aws_region,
        "access_key_id": settings.aws_access_key_id,
        "secret_access_key": settings.aws_secret_access_key.get_secret_value(),
        "session_token": settings.aws_session_token.get_secret_value(),
    }


def make_warehouse(settings: Settings) -> SnowflakeWarehouse:
    """Build the warehouse; it connects when it is asked something."""
    return SnowflakeWarehouse(make_connect(settings))


def make_connect(settings: Settings, **timeouts: int) -> Connect:
    """Return a function that opens a session.

    Args:
        timeouts: Of the connector, other than those of a run.
    """
    settings.need("snowflake_account", "snowflake_user")
    arguments = connect_arguments(
        account=settings.snowflake_account,
        user=settings.snowflake_user,
        password=settings.snowflake_password.get_secret_value(),
        private_key_file=settings.snowflake_private_key_file,
        private_key_passphrase=settings.snowflake_private_key_passphrase.get_secret_value(),
        authenticator=settings.snowflake_authenticator,
        token=settings.snowflake_token.get_secret_value(),
        role=settings.snowflake_role,
        warehouse=settings.snowflake_warehouse,
        database=settings.snowflake_database,
        schema=settings.snowflake_schema,
        host=settings.snowflake_host,
        port=settings.snowflake_port,
    )

    def connect() -> SnowflakeConnection:
        import snowflake.connector

        return snowflake.connector.connect(**{**arguments, **timeouts})

    return connect


def make_tracker(settings: Settings) -> MlflowTracker:
    """Return the MLflow store of trainings and evaluations.

    Raises:
        ConfigurationError: MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigurationError("MLflow is not installed: make .venv/train, or pip install -r requirements-train.txt")
    uri = settings.mlflow_tracking_uri or f"sqlite:///{PROJECT_ROOT / '.mlflow' / 'mlflow.db'}"
    if not uri.startswith(_SQLITE):
        return MlflowTracker(uri, None)
    folder = Path(uri.removeprefix(_SQLITE)).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    return MlflowTracker(uri, folder / "artifacts")


def make_work_area(settings: Settings) -> WorkArea:
    """Return where runs keep their files."""
    return WorkArea(settings.work_prefix_uri)


def make_ledger(settings: Settings, store: ObjectStore) -> Ledger:
    """Return where paid answers are kept, in the work prefix of `store`."""
    return Ledger(store, make_work_area(settings), stale_claim_s(settings))


def stale_claim_s(settings: Settings) -> float:
    """Return how long one question can take at most, all tries and pauses included."""
    flex = settings.caption_mode is CaptionMode.FLEX
    longest_s = max(settings.openai_timeout_s, settings.flex_timeout_s) if flex else settings.openai_timeout_s
    return longest_s * settings.openai_max_attempts * 2 + 120 + (settings.flex_patience_s if flex else 0)


def _make_openai(settings: Settings) -> tuple[AsyncOpenAI, OpenAIFormat]:
    """Build the openai client and what words its requests.

    Raises:
        ConfigurationError: There is no key, no known price, or images may not leave.
    """
    settings.need("openai_api_key")
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    from image_analyzer.clients.openai_format import FormatOptions, OpenAIFormat

    options = FormatOptions(
        model=settings.openai_model,
        detail=settings.openai_image_detail,
        style=settings.openai_api_style,
        reasoning_effort=settings.openai_reasoning_effort,
        max_output_tokens=settings.openai_max_output_tokens,
        send_image=settings.openai_send_image,
    )
    client = AsyncOpenAI(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url or None,
        timeout=httpx2.Timeout(settings.openai_timeout_s, connect=10.0),
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(verify=_trusted_authorities()),
    )
    return client, OpenAIFormat(options, model_price(settings))


@cache
def _trusted_authorities() -> ssl.SSLContext:
    """Return what a client trusts. To read the certificates takes most of the time of building one."""
    import httpx2

    return httpx2.create_ssl_context()


def make_captioner(settings: Settings, *, concurrency: int | None = None) -> Captioner:
    """Build who writes the captions. Where images may not leave, nothing that could send one is built.

    Raises:
        ConfigurationError: OpenAI was asked for without a key, or at an unknown price.
    """
    if settings.backend is CaptionBackend.OFFLINE:
        from image_analyzer.clients.litert_model import read_translations

        return OfflineDescriber(read_translations(hint_folder(settings)))
    from image_analyzer.clients.openai_captioner import FlexOptions, OpenAICaptioner, OpenAIOptions

    client, form = _make_openai(settings)
    options = OpenAIOptions(
        model=settings.openai_model,
        detail=settings.openai_image_detail,
        style=settings.openai_api_style,
        max_attempts=settings.openai_max_attempts,
        concurrency=concurrency or settings.openai_concurrency,
        proven=not (settings.openai_base_url and settings.openai_probe),
        flex=FlexOptions(settings.flex_timeout_s, settings.flex_patience_s)
        if settings.caption_mode is CaptionMode.FLEX
        else None,
    )
    return OpenAICaptioner(client, options, form)


def make_job_service(settings: Settings) -> JobService:
    """Build who answers files of requests."""
    from image_analyzer.clients.openai_jobs import OpenAIJobs

    client, form = _make_openai(settings)
    return OpenAIJobs(client, form, settings.openai_model)


def make_batch_jobs(settings: Settings, store: ObjectStore, manifest_uri: str, service: JobService) -> BatchJobs:
    """Return the batch jobs of one batch, within the caps of its run and of the day."""
    options = JobOptions(languages_per_call=settings.openai_languages_per_call, patience_s=settings.batch_patience_s)
    caps = make_caps(settings, settings.work_prefix_uri, run_file_uri(manifest_uri, "budget"))
    return BatchJobs(store, service, manifest_uri, options, caps)


def make_adopter(settings: Settings, store: ObjectStore) -> Adopter | None:
    """Return who takes up what other batches' jobs have answered; None where no jobs are sent."""
    if settings.backend is CaptionBackend.OFFLINE:
        return None
    service = make_job_service(settings)
    return JobAdopter(service, lambda manifest_uri: make_batch_jobs(settings, store, manifest_uri, service))


def with_caps(
    settings: Settings, captioner: Captioner, store: ObjectStore, *, root_uri: str, run_uri: str | None, owner: str
) -> Captioner:
    """Return the captioner within the caps on cost; the same one where there are none or it costs nothing.

    Args:
        root_uri, run_uri: See `make_caps`.
        owner: Who draws, for the books.
    """
    caps = make_caps(settings, root_uri, run_uri)
    return BudgetedCaptioner(captioner, store, caps, owner) if caps and captioner.paid else captioner


def make_caps(settings: Settings, root_uri: str, run_uri: str | None) -> list[Cap]:
    """Return the caps on cost.

    Args:
        root_uri: Below it lies the book of the day.
        run_uri: Below it lies the book of the run; None if this is no run.
    """
    caps = []
    if settings.max_run_cost_usd and run_uri:
        caps.append(Cap("MAX_RUN_COST_USD", settings.max_run_cost_usd, lambda: run_uri))
    if settings.max_day_cost_usd:
        today = f"{root_uri}/budget"
        caps.append(
            Cap(
                "MAX_DAY_COST_USD", settings.max_day_cost_usd, lambda: f"{today}/{datetime.now(UTC).date().isoformat()}"
            )
        )
    return caps


def make_batch_captioner(settings: Settings, store: ObjectStore, manifest_uri: str) -> Captioner:
    """Build who writes the captions of one batch, within the caps of its run and of the day."""
    return with_caps(
        settings,
        make_captioner(settings),
        store,
        root_uri=settings.work_prefix_uri,
        run_uri=run_file_uri(manifest_uri, "budget"),
        owner=manifest_uri,
    )


def model_price(settings: Settings) -> Price:
    """Return the price of the chosen model.

    Raises:
        ConfigurationError: Nobody knows it.
    """
    return find_price(settings.openai_model, settings.openai_input_usd_per_mtok, settings.openai_output_usd_per_mtok)


def hint_folder(settings: Settings) -> Path:
    """Return the folder of the chosen hint model."""
    return find_model(settings, settings.hint_model)


def find_model(settings: Settings, name: str) -> Path:
    """Return the folder of a model: what was trained here, else what comes with the project; it may not be there."""
    trained = settings.models_dir / name
    return trained if trained.is_dir() else SHIPPED_MODELS / name


def make_hint_model(settings: Settings) -> tuple[HintModel | None, str]:
    """Return the hint model, loaded once per process, or None and why not: `off` or `missing`.

    Raises:
        ConfigurationError: There is a model, but not the one that its manifest names.
    """
    if not settings.use_tf_hint:
        return None, "off"
    from image_analyzer.clients.litert_model import MANIFEST_FILE, load_model

    folder = hint_folder(settings)
    if not (folder / MANIFEST_FILE).exists():
        log.warning("no hint model in %s: the run goes on without hints (see `image-analyzer model`)", folder)
        return None, "missing"
    return load_model(folder, settings.hint_threads), ""


def hint_model_name(settings: Settings) -> str:
    """Return the name that rows of the chosen hint model carry; empty without one. The model is not loaded."""
    from image_analyzer.clients.litert_model import MANIFEST_FILE, read_manifest

    folder = hint_folder(settings)
    return read_manifest(folder).name if settings.use_tf_hint and (folder / MANIFEST_FILE).exists() else ""


def prepare_options(settings: Settings) -> PrepareOptions:
    """Return the bounds of what `prepare` reads."""
    return PrepareOptions(
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        thumbnail_px=settings.thumbnail_px,
        threads=settings.prepare_threads,
    )


def caption_options(settings: Settings) -> CaptionOptions:
    """Return how `caption` asks."""
    return CaptionOptions(
        hint_min_score=settings.hint_min_score,
        concurrency=settings.openai_concurrency,
        languages_per_call=settings.openai_languages_per_call,
    )


def plan_options(settings: Settings, *, most_batches: int = _MOST_BATCHES) -> PlanOptions:
    """Return how `discover` plans."""
    online = settings.backend is CaptionBackend.OPENAI
    return PlanOptions(
        batch_size=settings.batch_size,
        most_batches=most_batches,
        thumbnail_px=settings.thumbnail_px,
        replace_offline=online,
        price=model_price(settings) if online else None,
        model=settings.openai_model if online else "",
        detail=settings.openai_image_detail if online else "",
        hint_model=hint_model_name(settings),
        half_price=settings.caption_mode.value if online and settings.caption_mode is not CaptionMode.ONLINE else "",
        max_run_cost_usd=settings.max_run_cost_usd if online else None,
    )
