"""Runs a command of ours as a process of its own: what needs gigabytes must not grow inside a worker.

Every component of Airflow loads this file at start: what it needs of the core is imported where it is used.
"""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from image_analyzer.errors import ConfigurationError, FatalError, RetryableError
from image_analyzer.settings import PROJECT_ROOT
from image_analyzer_airflow import airflow_errors, find_connection, make_settings

if TYPE_CHECKING:
    from image_analyzer.settings import Settings

log = logging.getLogger(__name__)
_STOP_S = 30


def run_process(arguments: list[str]) -> str:
    """Run a command to its end, its lines in the task's log; return the last line of it that is a JSON object, if any.

    The process has the settings of this installation, Airflow's connections in them. It ends with the task: its standard
    input is closed when the task's process is gone, however that came.

    Raises:
        AirflowFailException: It failed in a way that no retry mends; its last line says why.
        RetryableError: It was killed, or says that it may be tried again.
    """
    with airflow_errors(), tempfile.TemporaryDirectory(prefix="image-analyzer-") as folder:
        environment = {**os.environ, **connection_environment(make_settings(), Path(folder))}
        process = subprocess.Popen(
            arguments, cwd=PROJECT_ROOT, env=environment, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        last = found = ""
        try:
            assert process.stdout is not None  # noqa: S101 - told to Popen above
            for line in process.stdout:
                last = line.strip() or last
                found = last if last.startswith("{") else found
                log.info(line.rstrip())
            code = process.wait()
        finally:
            _end(process)
        if code == os.EX_TEMPFAIL or code < 0:
            raise RetryableError(f"{arguments[1]} ended with {code}: {last}")
        if code:
            raise FatalError(last or f"{arguments[1]} ended with {code}")
    return found


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def connection_environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return Airflow's connections as settings of the environment; empty where there are none.

    What a connection does not say is said to be empty: half of it and half of the worker's own settings would be neither.

    Args:
        folder: Of this user alone; a key that a connection holds is put there for the process, which takes keys as files.
    """
    found: dict[str, str | None] = {}
    if find_connection(settings.aws_conn_id) is not None:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        hook: AwsBaseHook = AwsBaseHook(aws_conn_id=settings.aws_conn_id, client_type="s3")
        keys = hook.get_credentials()
        found |= {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token,
            "AWS_REGION": hook.region_name,
            "S3_ENDPOINT_URL": hook.conn_config.endpoint_url,
        }
    snowflake = find_connection(settings.snowflake_conn_id)
    if snowflake is not None:
        extra = snowflake.extra_dejson
        key = extra.get("private_key_file")
        if content := extra.get("private_key_content"):
            key = folder / "snowflake_key.pem"
            key.write_bytes(content.encode() if content.startswith("-----") else _decode(content, snowflake.conn_id))
        found |= {
            "SNOWFLAKE_USER": snowflake.login,
            "SNOWFLAKE_PASSWORD": None if key else snowflake.password,
            "SNOWFLAKE_PRIVATE_KEY_FILE": key,
            "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": snowflake.password if key else None,
            "SNOWFLAKE_SCHEMA": snowflake.schema,
            "SNOWFLAKE_HOST": extra.get("host"),
            "SNOWFLAKE_PORT": extra.get("port"),
            **{
                f"SNOWFLAKE_{name.upper()}": extra.get(name)
                for name in ("account", "database", "warehouse", "role", "authenticator", "token")
            },
        }
    if settings.openai_api_key.get_secret_value():
        found |= {
            "OPENAI_API_KEY": settings.openai_api_key.get_secret_value(),
            "OPENAI_BASE_URL": settings.openai_base_url,
        }
    return {name: str(value or "") for name, value in found.items()}


def _decode(content: str, connection: str) -> bytes:
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except ValueError:
        raise ConfigurationError(
            f"private_key_content of connection {connection} is neither PEM nor base64 of it"
        ) from None
