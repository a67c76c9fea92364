"""The only reader of the environment. Every field is an environment variable of the same name in upper case."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from image_analyzer.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class ApiStyle(StrEnum):
    """Which wire format the captioning server speaks."""

    RESPONSES = "responses"
    CHAT = "chat"


class CaptionBackend(StrEnum):
    """Who writes captions. AUTO is OpenAI where there is a key and images may leave, else the offline describer."""

    AUTO = "auto"
    OPENAI = "openai"
    OFFLINE = "offline"


class CaptionMode(StrEnum):
    """How OpenAI is asked. FLEX and BATCH are half the price and slower; what they cannot answer is asked at the standard price.

    FLEX asks one by one while there is room, BATCH sends files that are answered within a day.
    """

    ONLINE = "online"
    FLEX = "flex"
    BATCH = "batch"


class ImageDetail(StrEnum):
    """OpenAI's `detail`. `auto` is not offered: it can cost twenty times as much without saying so."""

    LOW = "low"
    HIGH = "high"
    ORIGINAL = "original"


class Settings(BaseSettings):
    """All settings, validated once. Secrets are `SecretStr`: they do not print."""

    model_config = SettingsConfigDict(env_file=PROJECT_ROOT / ".env", extra="ignore", frozen=True)

    # Images in S3
    s3_bucket: str = Field("", description="Bucket that images land in.")
    s3_prefix: str = Field("incoming/", description="Prefix that is sensed; `/` for the whole bucket.")
    work_uri: str = Field("", description="Where runs keep their files; `s3://$S3_BUCKET/_image_analyzer` if empty.")
    s3_endpoint_url: str = Field("", description="Other S3 endpoint, for a stand-in; empty for AWS.")
    aws_region: str = Field("us-east-1", description="AWS region.")
    aws_access_key_id: str = Field("", description="Access key; empty for the usual AWS credential chain.")
    aws_secret_access_key: SecretStr = Field(SecretStr(""), description="Secret of the access key.")
    aws_session_token: SecretStr = Field(SecretStr(""), description="Session token of temporary credentials.")
    aws_conn_id: str = Field(
        "aws_default", description="Airflow connection that wins over the AWS settings if it exists."
    )

    # Results in Snowflake
    snowflake_account: str = Field("", description="Account identifier.")
    snowflake_user: str = Field("", description="User.")
    snowflake_password: SecretStr = Field(SecretStr(""), description="Password, or a programmatic access token.")
    snowflake_private_key_file: str = Field("", description="Path of a PEM key for key-pair sign-in.")
    snowflake_private_key_passphrase: SecretStr = Field(SecretStr(""), description="Passphrase of that key.")
    snowflake_authenticator: str = Field(
        "", description="`oauth`, `programmatic_access_token`, … as the connector names it."
    )
    snowflake_token: SecretStr = Field(SecretStr(""), description="OAuth token, with `SNOWFLAKE_AUTHENTICATOR=oauth`.")
    snowflake_role: str = Field("", description="Role.")
    snowflake_warehouse: str = Field("IMAGE_ANALYZER_WH", description="Warehouse.")
    snowflake_database: str = Field("IMAGE_ANALYZER_DB", description="Database of IMAGE_RESULTS.")
    snowflake_schema: str = Field("IMAGE_SCHEMA", description="Schema of IMAGE_RESULTS.")
    snowflake_host: str = Field("", description="Other server, for an emulator; empty for Snowflake.")
    snowflake_port: int = Field(443, description="Port of that server.")
    snowflake_conn_id: str = Field(
        "snowflake_default", description="Airflow connection that wins over the Snowflake settings if it exists."
    )

    # Captions
    caption_backend: CaptionBackend = Field(
        CaptionBackend.AUTO, description="`auto`, `openai` or `offline` (local describer, no model, no network)."
    )
    caption_languages: Annotated[tuple[str, ...], NoDecode] = Field(
        ("en",), description="BCP 47 codes, comma separated: `en,fr,pt-BR`."
    )
    caption_mode: CaptionMode = Field(
        CaptionMode.ONLINE,
        description="`online`; half the price: `flex`, slower, while OpenAI has room, or `batch`, files answered in a day.",
    )
    batch_patience_s: float = Field(
        64_800.0,
        ge=0,
        le=172_800,
        description="After so long batch jobs are cancelled and what they left open is asked online.",
    )
    batch_poll_s: float = Field(60.0, gt=0, description="Pause between two looks at batch jobs.")
    flex_timeout_s: float = Field(900.0, gt=0, description="Time for one flex request.")
    flex_patience_s: float = Field(
        900.0, ge=0, description="How long flex may be unavailable before a batch goes on at the standard price."
    )
    openai_api_key: SecretStr = Field(SecretStr(""), description="API key; without it captions are written offline.")
    openai_base_url: str = Field("", description="Other OpenAI-compatible server (llama.cpp, vLLM, Ollama).")
    openai_api_style: ApiStyle = Field(ApiStyle.RESPONSES, description="`responses`, or `chat` for servers without it.")
    openai_probe: bool = Field(
        True, description="A server at `OPENAI_BASE_URL` must name the colour of a red square before a run asks it."
    )
    openai_model: str = Field("gpt-6-luna", description="Vision model.")
    openai_send_image: bool = Field(True, description="`false`: no image bytes leave; captions are written offline.")
    openai_image_detail: ImageDetail = Field(ImageDetail.HIGH, description="`low`, `high` or `original`.")
    openai_reasoning_effort: str = Field(
        "none", description="Reasoning effort; `-` leaves it out, for models that know none."
    )
    openai_timeout_s: float = Field(60.0, gt=0, description="Time for one request.")
    openai_max_attempts: int = Field(
        4, ge=1, description="Tries of one request before its picture waits for the next run."
    )
    openai_max_output_tokens: int = Field(300, ge=50, description="Bound of one answer.")
    openai_languages_per_call: int = Field(
        4, ge=1, description="Languages of one picture that one request asks for: the picture is paid for once."
    )
    openai_concurrency: int = Field(8, ge=1, description="Requests under way at once in one batch.")
    openai_input_usd_per_mtok: float | None = Field(
        None, ge=0, description="Price of a million input tokens, if the model is not in `data/prices.json`."
    )
    openai_output_usd_per_mtok: float | None = Field(
        None, ge=0, description="Price of a million output tokens, likewise."
    )
    max_run_cost_usd: float | None = Field(
        None, gt=0, description="A run spends no more; the rest waits for the next run as `pending_budget`."
    )
    max_day_cost_usd: float | None = Field(
        None, gt=0, description="All runs and commands of a day (UTC) together spend no more."
    )
    openai_conn_id: str = Field(
        "openai_default", description="Airflow connection whose key and host win over the OpenAI settings if it exists."
    )

    # Hints
    use_tf_hint: bool = Field(True, description="`false`: no label hints.")
    hint_model: str = Field(
        "imagenet-mobilenet-v2", description="Folder below `MODELS_DIR` or the project's `models/`, or a path."
    )
    models_dir: Path = Field(
        PROJECT_ROOT / "models", description="Where trained models go and are looked for; one that all workers see."
    )
    hint_min_score: float = Field(
        0.6, ge=0, le=1, description="A hint goes to the captioner only at or above this score."
    )
    hint_threads: int = Field(2, ge=1, description="Threads of the hint model.")
    hint_queue: str = Field("default", description="Queue of the hint tasks, for workers of their own.")

    # Training and evaluation
    train_data: str = Field(
        "", description="What `train_hint_model` learns from: a folder, an `s3://` prefix, or `results`."
    )
    train_name: str = Field("hints", description="Name of the model that it trains; versions of one name compete.")
    train_queue: str = Field(
        "default", description="Queue of `train_hint_model` and `evaluate_captions`, for workers that have MLflow."
    )
    train_cron: str = Field("", description="When `train_hint_model` starts (UTC); only by hand if empty.")
    mlflow_tracking_uri: str = Field(
        "", description="MLflow server or store; an sqlite store below `.mlflow/` of the project if empty."
    )

    evaluate_cron: str = Field("", description="When `evaluate_captions` starts (UTC); only by hand if empty.")

    # The run
    events_queue_url: str = Field(
        "", description="SQS queue into which S3 tells of new objects: they start a run at once; only by time if empty."
    )
    events_gather_s: int = Field(
        15, ge=1, le=120, description="How long after the first such message others are waited for."
    )
    sqs_endpoint_url: str = Field("", description="Other SQS endpoint, for a stand-in; empty for AWS.")
    schedule_cron: str = Field("0 2 * * *", description="When the nightly run starts (UTC).")
    run_deadline_s: int = Field(
        14_400,
        ge=1,
        description="Who is to be told hears of a run that takes longer; in batch mode after its patience.",
    )
    notify_sns_topic: str = Field(
        "", description="ARN of an SNS topic that is told of red and late runs, by way of `AWS_CONN_ID`."
    )
    notify_email: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Addresses, comma separated, that are told likewise, by Airflow's connection `smtp_default`."
    )
    retry_delay_s: int = Field(60, ge=0, description="Pause before a failed task is tried again.")
    batch_size: int = Field(250, ge=1, description="Images in one mapped batch.")
    sense_timeout_s: int = Field(300, ge=0, description="How long a run waits for new objects before it ends, green.")
    sense_poll_s: int = Field(60, ge=1, description="Pause between two listings while it waits.")

    # Pictures
    max_image_bytes: int = Field(50_000_000, ge=1, description="A larger object becomes a row with `too_large`.")
    max_image_pixels: int = Field(
        100_000_000, ge=1, description="A larger picture becomes a row with `too_many_pixels`."
    )
    thumbnail_px: int = Field(768, ge=64, le=2048, description="Long edge of the thumbnail that models see.")
    prepare_threads: int = Field(4, ge=1, description="Objects read at once in one batch.")

    # The faces
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Keys of the service, `name:sha256` comma separated; `image-analyzer api-key NAME` makes one."
    )
    api_prefixes: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Where the service reads `s3://` addresses, comma separated; `s3://$S3_BUCKET/$S3_PREFIX` if empty.",
    )
    api_rate_per_minute: int = Field(120, ge=1, description="Requests a minute that each key of the service may send.")
    api_body_timeout_s: float = Field(30.0, gt=0, description="Time for a request of the service to arrive whole.")

    app_believe_email: bool = Field(
        False, description="`true`: addresses are believed of a provider that does not say whether it verified them."
    )
    app_users: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Who may use the add-on once signed in: addresses or `@domain`, comma separated; all if empty.",
    )

    # The embedded stack
    local_stack_dir: Path = Field(PROJECT_ROOT / ".local", description="Data and logs of the embedded stack.")

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, values: Any) -> Any:
        # Here and not by `env_ignore_empty`: an empty variable must win over a line of `.env`.
        return {name: value for name, value in values.items() if value != ""} if isinstance(values, dict) else values

    @field_validator("s3_prefix")
    @classmethod
    def _no_leading_slash(cls, value: str) -> str:
        return value.lstrip("/")

    @field_validator("caption_languages", "api_keys", "api_prefixes", "app_users", "notify_email", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("caption_languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from image_analyzer.languages import parse_languages

        return parse_languages(value)

    @field_validator("api_keys")
    @classmethod
    def _hashed_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[\w.-]+:[0-9a-f]{64}", key) for key in value):
            raise ValueError(
                "each key is NAME:SHA256, as `image-analyzer api-key NAME` prints it; never the key itself"
            )
        return value

    @field_validator("app_users")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(user.lower() for user in value)

    @field_validator("api_prefixes")
    @classmethod
    def _whole_prefixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"s3://[^/]+/(.*/)?", prefix) for prefix in value):
            raise ValueError("each prefix is s3://BUCKET/PREFIX/ and ends with a slash")
        return value

    @model_validator(mode="after")
    def _key_where_needed(self) -> Settings:
        if self.caption_backend is CaptionBackend.OPENAI and not self.openai_send_image:
            raise ValueError("CAPTION_BACKEND=openai contradicts OPENAI_SEND_IMAGE=false: choose one")
        return self

    @property
    def work_prefix_uri(self) -> str:
        """Return the `s3://` address below which runs keep their files, without a trailing slash."""
        return (self.work_uri or f"s3://{self.s3_bucket}/_image_analyzer").rstrip("/")

    @property
    def readable_prefixes(self) -> tuple[str, ...]:
        """Return the `s3://` prefixes below which the service may read, each with a slash at its end.

        Of an `S3_PREFIX` without one, what lies in that folder: `incoming` must not let `incoming-private/` be read.
        """
        folder = self.s3_prefix.strip("/")
        return self.api_prefixes or ((f"s3://{self.s3_bucket}/{folder}{folder and '/'}",) if self.s3_bucket else ())

    @property
    def backend(self) -> CaptionBackend:
        """Return who writes the captions, AUTO resolved."""
        if self.caption_backend is not CaptionBackend.AUTO:
            return self.caption_backend
        online = self.openai_send_image and bool(self.openai_api_key.get_secret_value())
        return CaptionBackend.OPENAI if online else CaptionBackend.OFFLINE

    def need(self, *names: str) -> None:
        """Check that settings are filled.

        Raises:
            ConfigurationError: Names the first empty one and what it is for.
        """
        for name in names:
            value = getattr(self, name)
            if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
                text = type(self).model_fields[name].description
                raise ConfigurationError(f"{name.upper()} is not set ({text}). Set it in the environment or in .env.")


def load_settings(**overrides: object) -> Settings:
    """Read the settings.

    Raises:
        ConfigurationError: Names each wrong setting; never shows a value, which might be a secret.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])).upper() or 'settings'}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError("; ".join(problems)) from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return this process' settings, read once."""
    return load_settings()
