"""Airflow's connections, made from the settings: their secrets then lie in Airflow's database, encrypted."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from image_analyzer.errors import ConfigurationError
from image_analyzer.settings import Settings


def make_connections(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return what `airflow connections import` takes, by connection id; what is not set up has none.

    A key file goes in with its content, so that only this process has to reach it.

    Source: the parameters of AwsBaseHook, SnowflakeHook and OpenAIHook of the providers in requirements.txt.

    Raises:
        ConfigurationError: Snowflake is to be signed in to by a given OAuth token; the hook takes none, it asks for its own.
            Or the key file cannot be read.
    """
    if settings.snowflake_token.get_secret_value():
        raise ConfigurationError(
            "SNOWFLAKE_TOKEN cannot be kept in a connection, since Airflow's hook asks for OAuth tokens itself: use "
            "SNOWFLAKE_PRIVATE_KEY_FILE, or a programmatic access token as SNOWFLAKE_PASSWORD"
        )
    made = {}
    if settings.aws_access_key_id:
        made[settings.aws_conn_id] = _aws(settings)
    if settings.snowflake_account:
        made[settings.snowflake_conn_id] = _snowflake(settings)
    if key := settings.openai_api_key.get_secret_value():
        made[settings.openai_conn_id] = {"conn_type": "openai", "password": key, "host": settings.openai_base_url}
    return made


def _aws(settings: Settings) -> dict[str, Any]:
    extra: dict[str, Any] = {"region_name": settings.aws_region}
    if token := settings.aws_session_token.get_secret_value():
        extra["aws_session_token"] = token
    if settings.s3_endpoint_url:
        extra |= {
            "endpoint_url": settings.s3_endpoint_url,
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        }
    if settings.sqs_endpoint_url:
        extra["service_config"] = {"sqs": {"endpoint_url": settings.sqs_endpoint_url}}
    return {
        "conn_type": "aws",
        "login": settings.aws_access_key_id,
        "password": settings.aws_secret_access_key.get_secret_value(),
        "extra": extra,
    }


def _snowflake(settings: Settings) -> dict[str, Any]:
    key_file = settings.snowflake_private_key_file
    passphrase = settings.snowflake_private_key_passphrase
    extra: dict[str, Any] = {
        "account": settings.snowflake_account,
        "database": settings.snowflake_database,
        "warehouse": settings.snowflake_warehouse,
        "role": settings.snowflake_role,
        "authenticator": settings.snowflake_authenticator,
        "private_key_content": _read_key(key_file) if key_file else "",
    }
    if settings.snowflake_host:
        extra |= {
            "host": settings.snowflake_host,
            "port": settings.snowflake_port,
            "insecure_mode": True,
            "session_parameters": {"CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False},
        }
    return {
        "conn_type": "snowflake",
        "login": settings.snowflake_user,
        "password": (passphrase if key_file else settings.snowflake_password).get_secret_value(),
        "schema": settings.snowflake_schema,
        "extra": {name: value for name, value in extra.items() if value != ""},
    }


def _read_key(file: str) -> str:
    """Return a key as the hook takes it."""
    try:
        return base64.b64encode(Path(file).read_bytes()).decode()
    except OSError as error:
        raise ConfigurationError(
            f"SNOWFLAKE_PRIVATE_KEY_FILE: {file} cannot be read: {error.strerror}. In a container, group 0 must be able to"
        ) from None
