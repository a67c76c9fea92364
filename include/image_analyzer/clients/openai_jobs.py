"""OpenAI's Batch API: files of requests that are answered within a day at half the price."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from image_analyzer.clients.openai_errors import map_error, map_rejection
from image_analyzer.clients.openai_format import BATCH_TIER, OpenAIFormat
from image_analyzer.errors import AnswersGoneError, FatalError, ImageAnalyzerError, ItemError
from image_analyzer.ports import JobReply, JobState
from image_analyzer.prompts import CaptionRequest

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_NAME_KEY = "image_analyzer"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_QUEUE_FULL = "token_limit_exceeded"
# A net below our own deleting, the longest that OpenAI allows: answers that nobody has fetched yet are paid.
_EXPIRES_AFTER: Any = {"anchor": "created_at", "seconds": 2_592_000}
_UPLOAD_TIMEOUT_S = 600.0
_RETRIES = 3
_CLOCKS_DIFFER_S = 86_400


def _ended_at(job: Any) -> datetime:
    stamps = (job.completed_at, job.failed_at, job.expired_at, job.cancelled_at)
    return datetime.fromtimestamp(max((stamp for stamp in stamps if stamp), default=job.created_at), UTC)


class OpenAIJobs:
    """Sends jobs, finds them again, reads and deletes them.

    Args:
        client: The openai client. Here its own retries are on, but for the one call that is not safe to repeat.
        form: Words requests and reads replies.
    """

    def __init__(self, client: AsyncOpenAI, form: OpenAIFormat, model: str) -> None:
        self._once, self._client = client, client.with_options(max_retries=_RETRIES)
        self._form, self._model = form, model

    def line(self, custom_id: str, request: CaptionRequest) -> bytes:
        """Return one request as a line of a job's file."""
        body = self._form.arguments(request)
        asked = {"custom_id": custom_id, "method": "POST", "url": self._form.endpoint, "body": body}
        return json.dumps(asked, ensure_ascii=False).encode() + b"\n"

    def most_usd(self, request: CaptionRequest) -> float:
        """Return the most a request can cost in a job."""
        return self._form.most_usd(request, BATCH_TIER)

    async def send(self, name: str, content: bytes) -> str:
        """Upload a file and have it worked off; return the job's id.

        Raises:
            RetryableError: It failed, or nobody knows: look for the name before it is sent again.
        """
        async with self._mapped():
            upload = await self._client.files.create(
                file=(f"{name}.jsonl", content),
                purpose="batch",
                expires_after=_EXPIRES_AFTER,
                timeout=_UPLOAD_TIMEOUT_S,
            )
            return await self._begin(name, upload.id)

    async def _begin(self, name: str, file_id: str) -> str:
        job = await self._once.batches.create(
            input_file_id=file_id,
            endpoint=self._form.endpoint,  # type: ignore[arg-type]
            completion_window="24h",
            metadata={_NAME_KEY: name},
            output_expires_after=_EXPIRES_AFTER,
        )
        return job.id

    async def find(self, name: str, since: datetime) -> str | None:
        """Return the id of the job of this name; without one, delete files of that name, whose job never came to be."""
        oldest = since.timestamp() - _CLOCKS_DIFFER_S
        async with self._mapped():
            async for job in self._client.batches.list(limit=100):
                if (job.metadata or {}).get(_NAME_KEY) == name:
                    return job.id
                if job.created_at < oldest:
                    break
            async for file in self._client.files.list(purpose="batch", order="desc", limit=100):
                if file.created_at < oldest:
                    break
                if file.filename == f"{name}.jsonl":
                    await self._client.files.delete(file.id)
        return None

    async def look(self, job_id: str) -> JobState | None:
        """Return how far a job is; None if OpenAI does not know it."""
        import openai

        async with self._mapped():
            try:
                job = await self._client.batches.retrieve(job_id)
            except openai.NotFoundError:
                return None
        problems = (job.errors.data if job.errors else None) or []
        code = problems[0].code if problems else None
        files = {"input": job.input_file_id, "output": job.output_file_id, "error": job.error_file_id}
        return JobState(
            job_id=job.id,
            status=job.status,
            ended_at=_ended_at(job) if job.status in _ENDED else None,
            queue_full=code == _QUEUE_FULL,
            problem=f"{code}: {problems[0].message}" if problems else "",
            files={kind: file_id for kind, file_id in files.items() if file_id},
        )

    async def read(self, state: JobState, requests: Mapping[str, CaptionRequest]) -> AsyncIterator[JobReply]:
        """Yield what a job answered, in no order. Requests that were not reached or failed for a while are left out.

        Args:
            requests: By custom id.

        Raises:
            AnswersGoneError: Another process has read and deleted them meanwhile, or somebody has.
        """
        for kind in ("output", "error"):
            if kind not in state.files:
                continue
            async with self._mapped():
                content = await self._client.files.content(state.files[kind])
            for line in content.content.splitlines():
                if (reply := self._read_line(line, requests)) is not None:
                    yield reply

    async def cancel(self, job_id: str) -> None:
        """Ask that no more of a job be worked off; one that has ended or is unknown stays as it is."""
        import openai

        async with self._mapped():
            try:
                await self._client.batches.cancel(job_id)
            except (openai.ConflictError, openai.NotFoundError, openai.BadRequestError):
                return

    async def forget(self, state: JobState) -> None:
        """Delete a job's files, as far as they are there."""
        import openai

        for file_id in state.files.values():
            async with self._mapped():
                try:
                    await self._client.files.delete(file_id)
                except openai.NotFoundError:
                    continue

    async def aclose(self) -> None:
        """Close the connections."""
        await self._once.close()

    def _read_line(self, line: bytes, requests: Mapping[str, CaptionRequest]) -> JobReply | None:
        """Return what one line says; None if its request has no answer, so that it can be asked again."""
        try:
            said = json.loads(line)
            custom_id, response = said["custom_id"], said.get("response") or {}
            request = requests.get(custom_id)
            body = response.get("body")
            if request is None or not isinstance(body, dict):
                return None
            if response["status_code"] == 200:
                return JobReply(custom_id, self._form.read(request, self._form.parse(body), BATCH_TIER), None)
            rejection = map_rejection(body.get("error") or {})
        except ItemError as error:
            return JobReply(custom_id, None, error)
        except (ImageAnalyzerError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None
        return JobReply(custom_id, None, rejection) if rejection else None

    @asynccontextmanager
    async def _mapped(self) -> AsyncIterator[None]:
        """Let the client's errors leave as ours."""
        import openai

        try:
            yield
        except openai.NotFoundError as error:
            if error.request.url.path.endswith("/content"):
                raise AnswersGoneError("the answers are no longer at OpenAI") from None
            raise FatalError(
                "OpenAI, or the server at OPENAI_BASE_URL, has no Batch API: set CAPTION_MODE=online"
            ) from None
        except openai.BadRequestError as error:
            raise FatalError(f"OpenAI refuses batch files ({error.code}, parameter {error.param})") from None
        except Exception as error:
            if isinstance(error, ImageAnalyzerError):
                raise
            raise map_error(error, self._model) from None
