"""The trigger that hears of new objects: what it reads, gathers, deletes, and leaves in the queue."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome
from queueing import BUCKET, TellingBucket

import image_analyzer_events
from image_analyzer_events import NewObjectsTrigger, Tidings

STORED, NOT_STORED = AdvanceOutcome(acked=1, failed=0), AdvanceOutcome(acked=0, failed=1)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[TellingBucket]:
    """A bucket that tells, and its settings in the environment; its test event is read."""
    bucket = TellingBucket()
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        monkeypatch.delenv(name)
    for name, value in {**bucket.settings(), "S3_BUCKET": BUCKET, "WORK_URI": f"s3://{BUCKET}/in/_work"}.items():
        monkeypatch.setenv(name, value)
    (test_event,) = bucket.sqs.receive_message(QueueUrl=bucket.queue_url)["Messages"]
    bucket.sqs.delete_message(QueueUrl=bucket.queue_url, ReceiptHandle=test_event["ReceiptHandle"])
    yield bucket
    bucket.stop()


def reader(bucket: TellingBucket) -> Any:
    """Return who reads the queue."""
    trigger = NewObjectsTrigger(bucket.queue_url, BUCKET, "in/", gather_s=1)
    return trigger.create_shared_stream_producer(trigger.serialize()[1])


async def first(stream: AsyncIterator[Any]) -> Any:
    """Return the first of a stream."""
    return await asyncio.wait_for(anext(stream), 30)


def test_many_uploads_are_one_event(bucket: TellingBucket) -> None:
    """What comes while others are waited for goes together; keys are as S3 lists them; what is not for us is not counted."""
    for key in (
        "in/my cat +ü.jpg",
        "in/b.jpg",
        "out/c.jpg",
        "in/_work/runs/x.json",
        *(f"in/{n}.jpg" for n in range(9)),
    ):
        bucket.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    bucket.s3.delete_object(Bucket=BUCKET, Key="in/b.jpg")

    tidings, receipts = asyncio.run(first(reader(bucket).open_stream()))

    assert (11, "s3://images/in/my cat +ü.jpg", 14) == (tidings.count, tidings.first, len(receipts))


def test_messages_go_when_their_event_is_stored(bucket: TellingBucket) -> None:
    """Not before: a triggerer that dies, or a database that takes nothing, loses none; what nobody understands stays, too."""
    bucket.sqs.send_message(QueueUrl=bucket.queue_url, MessageBody="no event of S3")
    bucket.s3.put_object(Bucket=BUCKET, Key="in/a.jpg", Body=b"x")
    queue_reader = reader(bucket)

    async def read() -> None:
        _, receipts = await first(queue_reader.open_stream())
        await queue_reader.advance([AdvanceItem(receipts, NOT_STORED)])
        assert 2 == bucket.left()
        await queue_reader.advance([AdvanceItem(receipts, STORED)])

    asyncio.run(read())
    assert 1 == bucket.left()


def test_tidings_of_nothing_new_start_nothing(bucket: TellingBucket) -> None:
    """A message about another prefix is read and passed on for deletion, and fires no event."""

    async def told() -> AsyncIterator[Tidings]:
        yield Tidings(0, "")
        yield Tidings(2, "s3://images/in/a.jpg")

    async def fired() -> list[Any]:
        trigger = NewObjectsTrigger(bucket.queue_url, BUCKET, "in/", gather_s=1)
        return [event.payload async for event in trigger.filter_shared_stream(told())]

    assert [{"objects": 2, "first": "s3://images/in/a.jpg"}] == asyncio.run(fired())


def test_a_queue_that_does_not_answer_is_waited_for(bucket: TellingBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQS out of order ends nothing: the reader tries again until it answers."""
    monkeypatch.setattr(image_analyzer_events, "_PAUSE_S", 0.1)
    queue_reader = reader(bucket)
    real, failures = queue_reader._open, iter([OSError("down"), OSError("down")])

    def sometimes() -> Any:
        for error in failures:
            raise error
        return real()

    queue_reader._open = sometimes
    bucket.s3.put_object(Bucket=BUCKET, Key="in/a.jpg", Body=b"x")

    assert 1 == asyncio.run(first(queue_reader.open_stream()))[0].count


def test_a_trigger_holds_no_credential(bucket: TellingBucket) -> None:
    """What Airflow's database keeps of it names the queue and what to look for."""
    path, arguments = NewObjectsTrigger(bucket.queue_url, BUCKET, "in/", gather_s=1).serialize()

    assert "image_analyzer_events.NewObjectsTrigger" == path
    assert {"queue_url": bucket.queue_url, "bucket": "images", "prefix": "in/", "gather_s": 1} == json.loads(
        json.dumps(arguments)
    )
