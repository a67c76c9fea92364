"""Messages of S3, in every envelope, and the ugly ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from image_analyzer.events import NewObject, NotUnderstoodError, concerning, read_message


def record(key: str = "incoming/a.jpg", event: str = "ObjectCreated:Put", **more: Any) -> dict[str, Any]:
    """Return a record as S3 writes it."""
    return {
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventName": event,
        "s3": {"bucket": {"name": "images", "arn": "arn:aws:s3:::images"}, "object": {"key": key, "size": 5, "eTag": "d4"}},
        **more,
    }  # fmt: skip


def records(*made: dict[str, Any]) -> str:
    """Return a message of records."""
    return json.dumps({"Records": list(made)})


def eventbridge(key: str, kind: str = "Object Created") -> dict[str, Any]:
    """Return what EventBridge passes on."""
    return {
        "version": "0", "source": "aws.s3", "detail-type": kind, "resources": ["arn:aws:s3:::images"],
        "detail": {"bucket": {"name": "images"}, "object": {"key": key, "size": 5}, "reason": "PutObject"},
    }  # fmt: skip


def sns(message: str) -> str:
    """Return what SNS delivers to a queue."""
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": message})


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (records(record()), ["incoming/a.jpg"]),
        (records(record("a.jpg"), record("b.jpg", "ObjectCreated:CompleteMultipartUpload")), ["a.jpg", "b.jpg"]),
        (records(record("my+holiday%2B1/%C3%BCnter%20%F0%9F%90%88.jpg")), ["my holiday+1/ünter 🐈.jpg"]),
        (records(record("broken%FFutf8%zz.jpg")), ["broken\ufffdutf8%zz.jpg"]),
        (records(record(event="s3:ObjectCreated:Copy")), ["incoming/a.jpg"]),
        (records(record(event="ObjectRestore:Completed")), ["incoming/a.jpg"]),
        (records(record(event="ObjectRemoved:Delete"), record("b.jpg")), ["b.jpg"]),
        (records(record(event="ObjectRestore:Post"), record(event="LifecycleTransition")), []),
        (records(), []),
        (sns(records(record("a+b.jpg"))), ["a b.jpg"]),
        (json.dumps(eventbridge("a+b %20.jpg")), ["a+b %20.jpg"]),
        (json.dumps(eventbridge("a.jpg", "Object Deleted")), []),
        (sns(json.dumps(eventbridge("a.jpg"))), ["a.jpg"]),
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "images"}), []),
        (sns(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "images"})), []),
    ],
)
def test_every_envelope_is_opened(body: str, keys: list[str]) -> None:
    """Keys are as a listing has them; what goes, moves or is only tried tells of nothing new."""
    assert [NewObject("images", key) for key in keys] == list(read_message(body))


@pytest.mark.parametrize(
    "body",
    [
        "", "hello", "[]", "null", "7", "{}", "[" * 50_000, json.dumps({"Records": "x"}), json.dumps({"Records": [1]}),
        records(record(eventSource="aws:sqs")), records(record(s3={"bucket": {"name": "b"}})), records(record(key="")),
        json.dumps({"source": "aws.s3", "detail-type": "Object Created"}), sns("hello"), sns(sns(sns(sns(records(record()))))),
        json.dumps({"Message": {"secret": "sk-1"}}),
    ],
)  # fmt: skip
def test_what_is_none_of_s3s_is_an_error_without_its_content(body: str) -> None:
    """Nothing of a foreign message gets into a log."""
    with pytest.raises(NotUnderstoodError) as caught:
        read_message(body)
    assert len(str(caught.value)) < 60
    assert "sk-1" not in str(caught.value)


def test_only_what_a_run_would_find_starts_one() -> None:
    """Other buckets, other prefixes, our own files and folders of a console do not."""
    told = [
        NewObject(*place)
        for place in (
            ("b", "in/a.jpg"),
            ("other", "in/a.jpg"),
            ("b", "out/a.jpg"),
            ("b", "in/"),
            ("b", "in/_work/runs/x"),
        )
    ]
    assert [NewObject("b", "in/a.jpg")] == concerning(told, "b", "in/", "s3://b/in/_work")
    assert 3 == len(concerning(told, "b", "", "s3://b/in/_work")) + 1
