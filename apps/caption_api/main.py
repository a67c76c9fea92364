"""The service: captions and results over HTTP. `image-analyzer api` runs it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import generate_latest
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from caption_api import metrics
from caption_api.addresses import allowed_location
from caption_api.descriptions import ABOUT, BODY, KEY, problems
from caption_api.gate import Gate
from caption_api.models import (
    MOST_LANGUAGES,
    AddressRequest,
    CaptionedOut,
    FormRequest,
    ImageOut,
    NextPage,
    ResultsOut,
    show_rows,
    show_upload,
)
from caption_api.problems import answer_with_problems
from image_analyzer.errors import ConfigurationError, ImageAnalyzerError
from image_analyzer.faces import Faces, make_faces, warm_up
from image_analyzer.languages import parse_languages
from image_analyzer.ports import ReviewDesk, Search
from image_analyzer.records import Status
from image_analyzer.settings import Settings, load_settings
from image_analyzer.steps.upload import Upload, Uploaded, caption_object, caption_upload

log = logging.getLogger(__name__)
_FORM_OVERHEAD_BYTES = 16_384
_READY_FOR_S = 5.0
_CAPTIONS_AT_ONCE = 40
_MOST_FIELDS = MOST_LANGUAGES + 8


class Service:
    """What the routes work with, built once."""

    def __init__(self, settings: Settings, faces: Faces) -> None:
        self.settings, self.faces = settings, faces
        self._ready: tuple[float, tuple[str, ...]] = (0.0, ())
        self._one_looks = anyio.CapacityLimiter(1)
        # Threads of their own: captions that wait for a model leave those of lookups free.
        self.captions_at_once = anyio.CapacityLimiter(_CAPTIONS_AT_ONCE)

    @property
    def desk(self) -> ReviewDesk:
        """The table's desk; an error where there is no warehouse."""
        if self.faces.desk is None:
            raise ConfigurationError("SNOWFLAKE_ACCOUNT is not set: there are no results.")
        return self.faces.desk

    def languages(self, wanted: list[str]) -> tuple[str, ...]:
        """Return known languages, those of the settings if none are asked for."""
        return parse_languages(wanted) if wanted else self.settings.caption_languages

    async def not_ready(self) -> tuple[str, ...]:
        """Return what does not answer; looked at every few seconds at most, by one request, however many ask."""
        return await anyio.to_thread.run_sync(self._look, limiter=self._one_looks)

    def _look(self) -> tuple[str, ...]:
        at, found = self._ready
        if time.monotonic() - at > _READY_FOR_S:
            looks = {"bucket": self._look_at_bucket, "warehouse": self._look_at_warehouse}
            found = tuple(subject for subject, look in looks.items() if not _answers(subject, look))
            self._ready = (time.monotonic(), found)
        return found

    def _look_at_bucket(self) -> None:
        if self.faces.tools.store:
            next(iter(self.faces.tools.store.list_objects(self.settings.s3_bucket, self.settings.s3_prefix)), None)

    def _look_at_warehouse(self) -> None:
        if self.faces.desk:
            self.faces.desk.search(Search(), 1)


def _answers(subject: str, look: Callable[[], None]) -> bool:
    """Tell whether a look succeeds. Why not is for the log: whoever asks a probe has shown no key."""
    try:
        look()
    except ImageAnalyzerError as error:
        log.warning("the %s does not answer: %s", subject, error)
        return False
    return True


def create_app(settings: Settings | None = None) -> ASGIApp:
    """Build the service.

    Raises:
        ConfigurationError: A setting is missing or wrong; without a key nobody could call it.
    """
    settings = settings or load_settings()
    settings.need("api_keys")
    service = Service(settings, make_faces(settings))
    warm_up(settings)
    app = FastAPI(title="Smart Image Analyzer", version="1", description=ABOUT, redoc_url=None)
    answer_with_problems(app)
    _add_probes(app, service)
    _add_captions(app, service)
    _add_results(app, service)
    return Gate(
        app,
        keys=settings.api_keys,
        per_minute=settings.api_rate_per_minute,
        most_bytes=settings.max_image_bytes + _FORM_OVERHEAD_BYTES,
        body_timeout_s=settings.api_body_timeout_s,
    )


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["probes"])
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["probes"], responses={503: {"description": "Something it needs does not answer"}})
    async def readyz() -> JSONResponse:
        """Tell whether bucket and warehouse answer."""
        silent = await service.not_ready()
        return (
            JSONResponse({"status": "not ready", "no_answer": silent}, 503)
            if silent
            else JSONResponse({"status": "ok"})
        )

    @app.get("/metrics", tags=["probes"], response_class=PlainTextResponse)
    async def show_metrics() -> PlainTextResponse:
        """Return counters in Prometheus' text format."""
        return PlainTextResponse(generate_latest(), media_type="text/plain; version=0.0.4")


def _add_captions(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/captions",
        tags=["captions"],
        dependencies=[KEY],
        openapi_extra=BODY,
        responses=problems(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
    )
    async def post_captions(request: Request) -> CaptionedOut:
        """Caption a picture: upload it, or name an object in S3.

        Known captions of the same bytes are returned at once and cost nothing. A caption that could not be made to keep the
        contract has status `needs_review` and no text.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            reading = _read_form(request, service)
        elif kind == "application/json":
            reading = _read_address(request, service)
        else:
            raise HTTPException(415, "Send multipart/form-data with a file, or application/json with an image_uri.")
        async with reading as work:
            uploaded = await anyio.to_thread.run_sync(work, limiter=service.captions_at_once)
        metrics.count_upload(uploaded)
        return show_upload(uploaded)


@asynccontextmanager
async def _read_form(request: Request, service: Service) -> AsyncIterator[Callable[[], Uploaded]]:
    async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise HTTPException(422, "The form has no file in its field `file`.")
        fields: dict[str, Any] = {name: value for name, value in form.items() if name not in ("file", "languages")}
        with _validated():
            asked = FormRequest.model_validate({**fields, "languages": form.getlist("languages")})
        languages = service.languages(asked.languages)

        def work() -> Uploaded:
            # Read by whoever has a thread: what waits for one lies in files, not in memory.
            upload = Upload(file.file.read(), file.filename or "", languages, archive=asked.archive == "true")
            return caption_upload(service.faces.tools, upload)

        yield work


@contextmanager
def _validated() -> Iterator[None]:
    """Answer what a model refuses as FastAPI answers it for bodies it reads itself."""
    try:
        yield
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


@asynccontextmanager
async def _read_address(request: Request, service: Service) -> AsyncIterator[Callable[[], Uploaded]]:
    try:
        document = json.loads(await request.body())
    except (ValueError, RecursionError):  # the latter: brackets within brackets, a hundred thousand deep
        raise HTTPException(400, "The body is no JSON.") from None
    with _validated():
        asked = AddressRequest.model_validate(document)
    settings = service.settings
    location = allowed_location(asked.image_uri, settings.readable_prefixes, settings.work_prefix_uri)
    languages = service.languages(asked.languages)

    def work() -> Uploaded:
        return caption_object(service.faces.tools, *location, languages)

    yield work


def _add_results(app: FastAPI, service: Service) -> None:
    @app.get("/v1/images/{sha256}", tags=["results"], dependencies=[KEY], responses=problems(401, 404, 422, 429, 503))
    def get_image(
        sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bytes")],
    ) -> list[ImageOut]:
        """Return the addresses that hold these bytes with their captions, a thousand rows at most."""
        found = show_rows(service.desk.search(Search(sha256=sha256), 1_000))
        if not found:
            raise HTTPException(404, "No row has these bytes.")
        return found

    @app.get("/v1/results", tags=["results"], dependencies=[KEY], responses=problems(401, 422, 429, 503))
    def get_results(
        words: Annotated[str, Query(max_length=200, description="In the caption or the file name")] = "",
        status: Status | None = None,
        language: Annotated[str, Query(max_length=12)] = "",
        limit: Annotated[int, Query(ge=1, le=500, description="Rows of a page")] = 100,
        after_uri: Annotated[str, Query(max_length=1_200, description="As `next_page` of the page before says")] = "",
        after_language: Annotated[str, Query(max_length=12)] = "",
    ) -> ResultsOut:
        """Return results in order of their addresses, page by page."""
        search = Search(words=words, status=status.value if status else "", language=language)
        rows = service.desk.search(search, limit, (after_uri, after_language))
        last = rows[-1] if len(rows) == limit else None
        following = NextPage(after_uri=last["IMAGE_URI"], after_language=last["LANGUAGE"]) if last else None
        return ResultsOut(images=show_rows(rows), next_page=following)
