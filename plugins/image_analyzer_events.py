"""Starts runs when S3 tells of new objects: a trigger that an AssetWatcher holds, over the SQS queue of the bucket.

A message is deleted only when Airflow has stored what it led to (a shared stream in ack mode): a triggerer that dies loses
none. What comes twice leads to a run that finds nothing. The nightly run finds whatever S3 never told of.

Every component of Airflow loads this file at start: what it needs of the core is imported where it is used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from image_analyzer_airflow import make_events, make_settings

if TYPE_CHECKING:
    from image_analyzer.clients.event_queue import EventQueue, Message

log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 20  # of one look: SQS' most
_PAUSE_S = 30.0


class Tidings(NamedTuple):
    """What a few messages told of.

    Attributes:
        count: New objects.
        first: Address of the first.
    """

    count: int
    first: str


class NewObjectsTrigger(BaseEventTrigger):
    """Fires when messages tell of new objects below a prefix, at most once in `gather_s`.

    Args:
        queue_url: Of the SQS queue.
        gather_s: After the first message others are waited for, so that many uploads are one run.
    """

    def __init__(self, queue_url: str, bucket: str, prefix: str, gather_s: int) -> None:
        super().__init__()
        self.queue_url, self.bucket, self.prefix, self.gather_s = queue_url, bucket, prefix, gather_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to build it; no credential is among it."""
        arguments = {name: getattr(self, name) for name in ("queue_url", "bucket", "prefix", "gather_s")}
        return "image_analyzer_events.NewObjectsTrigger", arguments

    def shared_stream_key(self) -> tuple[str, ...]:
        """Return what makes two triggers one: also a single one takes this way, since it alone tells what was stored."""
        return "image_analyzer_events", self.queue_url, self.bucket, self.prefix, str(self.gather_s)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return who reads the queue."""
        return _QueueReader(**kwargs)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Tidings]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for messages that tell of something new here; of all others nothing, and they are deleted."""
        async for tidings in shared_stream:
            if tidings.count:
                yield TriggerEvent({"objects": tidings.count, "first": tidings.first})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Never called: the stream is always shared."""
        raise NotImplementedError("NewObjectsTrigger is for an AssetWatcher")
        yield


class _QueueReader(SharedStreamProducer):
    """Reads the queue for as long as a trigger wants it; SQS out of order is waited for."""

    def __init__(self, queue_url: str, bucket: str, prefix: str, gather_s: int) -> None:
        self._queue_url, self._bucket, self._prefix, self._gather_s = queue_url, bucket, prefix, gather_s
        self._queue: EventQueue | None = None

    async def open_stream(self) -> AsyncIterator[tuple[Tidings, list[str]]]:
        """Yield what was told, with the receipts of the messages that told it."""
        while True:
            try:
                messages = await self._gather()
            except Exception as error:
                log.warning("events of S3 cannot be read, again in %d s: %s: %s", _PAUSE_S, type(error).__name__, error)
                await asyncio.sleep(_PAUSE_S)
                continue
            tidings, receipts = await asyncio.to_thread(self._read, messages)
            if receipts:
                yield tidings, receipts

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Delete the messages whose event is stored; the others come again."""
        receipts = [receipt for item in batch if item.outcome.is_clean for receipt in item.broker_payload]
        try:
            await asyncio.to_thread(self._open().delete, receipts)
        except Exception as error:
            log.warning("messages are not deleted and will come again: %s: %s", type(error).__name__, error)

    async def _gather(self) -> list[Message]:
        """Return the messages of `gather_s` after the first, which is waited for."""
        queue = await asyncio.to_thread(self._open)
        messages = await asyncio.to_thread(queue.receive, _LONGEST_WAIT_S)
        end_at = time.monotonic() + self._gather_s
        while messages and (left_s := end_at - time.monotonic()) > 0:
            messages += await asyncio.to_thread(queue.receive, min(_LONGEST_WAIT_S, max(1, round(left_s))))
        return messages

    def _open(self) -> EventQueue:
        if self._queue is None:
            self._queue = make_events(make_settings(), self._queue_url)
        return self._queue

    def _read(self, messages: Sequence[Message]) -> tuple[Tidings, list[str]]:
        """Return what messages told, and the receipts of those that were understood: others are left to the queue's policy."""
        from image_analyzer.events import NewObject, NotUnderstoodError, concerning, read_message

        found: list[NewObject] = []
        understood = []
        for message in messages:
            try:
                found += read_message(message.body)
            except NotUnderstoodError as error:
                log.warning("a message of %s is left in the queue: %s", self._queue_url, error)
            else:
                understood.append(message.receipt)
        here = concerning(found, self._bucket, self._prefix, make_settings().work_prefix_uri)
        first = f"s3://{here[0].bucket}/{here[0].key}" if here else ""
        log.info("%d messages tell of %d new objects, %d of them here", len(messages), len(found), len(here))
        return Tidings(len(here), first), understood
