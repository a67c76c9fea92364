"""Checks everything a run needs, without spending anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from image_analyzer import wiring
from image_analyzer.errors import ConfigurationError, ImageAnalyzerError
from image_analyzer.settings import CaptionBackend, CaptionMode, Settings, load_settings


class Finding(NamedTuple):
    """One line: what was looked at, whether it is sound, and what is so or how to mend it."""

    subject: str
    sound: bool
    message: str


def examine() -> Iterator[Finding]:
    """Yield one finding per subject; later ones are left out where the settings cannot be read."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding(
        "settings",
        True,
        f"captions in {', '.join(settings.caption_languages)}, nightly at {settings.schedule_cron!r} UTC",
    )
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("bucket", _bucket),
        ("snowflake", _snowflake),
        ("captions", _captions),
        ("model", _model),
    ]
    for subject, look in checks:
        try:
            yield Finding(subject, True, look(settings))
        except ImageAnalyzerError as error:
            yield Finding(subject, False, str(error))


def _bucket(settings: Settings) -> str:
    store = wiring.make_store(settings)
    first = list(islice(store.list_objects(settings.s3_bucket, settings.s3_prefix), 1))
    return f"s3://{settings.s3_bucket}/{settings.s3_prefix} can be listed" + ("" if first else " and is empty")


def _snowflake(settings: Settings) -> str:
    rows = wiring.make_warehouse(settings).select_results(1, {})
    return f"IMAGE_RESULTS answers and {'has rows' if rows else 'is empty'}"


def _captions(settings: Settings) -> str:
    if settings.backend is CaptionBackend.OFFLINE:
        why = (
            "OPENAI_SEND_IMAGE=false"
            if not settings.openai_send_image
            else "no OPENAI_API_KEY, or CAPTION_BACKEND=offline"
        )
        return f"written offline, nothing leaves this machine ({why})"
    import openai

    from image_analyzer.clients.openai_errors import map_error

    price = wiring.model_price(settings)
    client = openai.OpenAI(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url or None,
        timeout=15,
        max_retries=1,
    )
    try:
        client.models.retrieve(settings.openai_model)
    except Exception as error:
        raise map_error(error, settings.openai_model) from None
    finally:
        client.close()
    mode = settings.caption_mode
    half = "" if mode is CaptionMode.ONLINE else f", half of that by {mode}"
    return f"{settings.openai_model} answers; ${price.input} / ${price.output} a million tokens in / out{half}"


def _model(settings: Settings) -> str:
    model, why_not = wiring.make_hint_model(settings)
    if model is None and why_not == "missing":
        raise ConfigurationError(
            f"no hint model in {wiring.hint_folder(settings)}: set HINT_MODEL, or USE_TF_HINT=false"
        )
    return f"{model.name}, {len(model.labels)} labels" if model else "hints are off (USE_TF_HINT=false)"
