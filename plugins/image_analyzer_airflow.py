"""Turns Airflow's connections into the core's clients, and the core's errors into Airflow's decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from image_analyzer.errors import (
    ConfigurationError,
    FatalError,
    ItemError,
    QualityError,
    RetryableError,
)
from image_analyzer.settings import Settings, load_settings

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from airflow.sdk.definitions.context import Context

    from image_analyzer.clients.event_queue import EventQueue
    from image_analyzer.ports import ObjectStore, ReviewDesk, Warehouse

_SHORTEST_RETRY = timedelta(seconds=5)


class RetryByKind(RetryPolicy):
    """Retry what the core calls retryable, after the pause the other side asked for; end at once on the rest."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide by the kind of error."""
        if isinstance(exception, RetryableError):
            delay = None
            if exception.retry_after_s is not None:
                delay = max(_SHORTEST_RETRY, timedelta(seconds=exception.retry_after_s))
            return RetryDecision.retry(delay, reason=str(exception))
        if isinstance(exception, ConfigurationError | FatalError | QualityError | ItemError):
            return RetryDecision.fail(reason=str(exception))
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return the arguments: there are none."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> RetryByKind:
        """Build it again."""
        return cls()


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Let errors that no retry can mend end a task at once, with a message that says what to do."""
    try:
        yield
    except (ConfigurationError, FatalError, QualityError) as error:
        raise AirflowFailException(str(error)) from None


def make_settings() -> Settings:
    """Read the settings; the OpenAI connection, where there is one, brings key and address."""
    settings = load_settings()
    connection = find_connection(settings.openai_conn_id)
    if connection is None or not connection.password:
        return settings
    overrides = {"openai_api_key": connection.password}
    if connection.host:
        overrides["openai_base_url"] = connection.host
    return load_settings(**overrides)


def make_store(settings: Settings) -> ObjectStore:
    """Build the object store from the AWS connection, or from the settings where there is none."""
    from image_analyzer import wiring

    if find_connection(settings.aws_conn_id) is None:
        return wiring.make_store(settings)
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    from image_analyzer.clients.s3_store import S3Store

    settings.need("s3_bucket")
    ours = Config(max_pool_connections=32, retries={"mode": "standard", "max_attempts": 5})
    theirs = S3Hook(aws_conn_id=settings.aws_conn_id).conn_config.botocore_config
    hook = S3Hook(aws_conn_id=settings.aws_conn_id, config=ours.merge(theirs) if theirs else ours)
    return S3Store(hook.get_conn())


def make_events(settings: Settings, queue_url: str) -> EventQueue:
    """Build the queue of S3's events from the AWS connection, or from the settings where there is none."""
    from image_analyzer import wiring

    if find_connection(settings.aws_conn_id) is None:
        return wiring.make_events(settings, queue_url)
    from airflow.providers.amazon.aws.hooks.sqs import SqsHook

    from image_analyzer.clients.event_queue import EventQueue

    return EventQueue(SqsHook(aws_conn_id=settings.aws_conn_id).get_conn(), queue_url)


def make_warehouse(settings: Settings) -> Warehouse:
    """Build the warehouse from the Snowflake connection, or from the settings where there is none."""
    from image_analyzer.clients.snowflake_warehouse import SnowflakeWarehouse

    return SnowflakeWarehouse(_make_connect(settings))


def make_desk(settings: Settings) -> ReviewDesk:
    """Build what people see of the table, likewise."""
    from image_analyzer.clients.snowflake_desk import SnowflakeDesk

    return SnowflakeDesk(_make_connect(settings))


def _make_connect(settings: Settings) -> Callable[[], Any]:
    from image_analyzer import wiring

    connection = find_connection(settings.snowflake_conn_id)
    return wiring.make_connect(settings) if connection is None else _snowflake_connect(connection, settings)


def _snowflake_connect(connection: Connection, settings: Settings) -> Callable[[], Any]:
    """Return a function that connects as the provider does: password, key pair, OAuth, token.

    The hook only connects: its `run` would log statements with their values.
    """
    from airflow.providers.snowflake.hooks.snowflake import SnowflakeHook

    from image_analyzer.clients.snowflake_session import SESSION_PARAMETERS, TIMEOUTS

    extra = connection.extra_dejson
    fallbacks = {
        "database": None if extra.get("database") else settings.snowflake_database,
        "schema": None if connection.schema else settings.snowflake_schema,
        "warehouse": None if extra.get("warehouse") else settings.snowflake_warehouse,
    }
    session = {**(extra.get("session_parameters") or {}), **SESSION_PARAMETERS}

    class BoundedHook(SnowflakeHook):
        """Waits for a server no longer than we do; the hook itself knows no such parameter and would wait for ever."""

        def _get_conn_params(self) -> dict[str, Any]:
            return {**super()._get_conn_params(), **TIMEOUTS}

    hook = BoundedHook(
        snowflake_conn_id=settings.snowflake_conn_id,
        session_parameters=session,
        **{name: value for name, value in fallbacks.items() if value},
    )
    return hook.get_conn


def find_connection(conn_id: str) -> Connection | None:
    """Return a connection; None if nobody has set it up."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None
