"""What S3 tells of new objects, by whichever way: straight to SQS, through SNS, or through EventBridge. Pure.

Shapes of messages: Amazon S3 user guide, "Event message structure" and "Using EventBridge"; SNS "HTTP/SQS notification format";
read in November 2026.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

_CREATED = ("ObjectCreated:", "ObjectRestore:Completed")
_CREATED_IN_EVENTBRIDGE = frozenset({"Object Created", "Object Restore Completed"})
_ENVELOPES = 3  # SNS in EventBridge in SQS is more than anybody builds


class NotUnderstoodError(ValueError):
    """A message that is none of S3's. Its content is not in the error."""


class NewObject(NamedTuple):
    """An object that S3 says has come."""

    bucket: str
    key: str


def read_message(body: str) -> tuple[NewObject, ...]:
    """Return the new objects that a message tells of; none of a test event, or where objects went.

    Keys are as S3 lists them: decoded where S3 encodes them, which it does not in EventBridge.

    Raises:
        NotUnderstoodError: It is not one of S3's.
    """
    document: Any = body
    for _ in range(_ENVELOPES):
        document = _parse(document)
        if "Records" in document:
            return tuple(_read_records(document["Records"]))
        if document.get("Event") == "s3:TestEvent":
            return ()
        if document.get("source") == "aws.s3":
            return _read_eventbridge(document)
        if "Message" not in document:  # else SNS: what it was told is in there, as text
            break
        document = document["Message"]
    raise NotUnderstoodError("it is no event of S3")


def _parse(document: Any) -> dict[str, Any]:
    try:
        parsed = json.loads(document) if isinstance(document, str) else document
    except (ValueError, RecursionError):
        raise NotUnderstoodError("it is no JSON") from None
    if not isinstance(parsed, dict):
        raise NotUnderstoodError("it is no JSON object")
    return parsed


def _read_records(records: Any) -> Iterable[NewObject]:
    if not isinstance(records, list):
        raise NotUnderstoodError("its Records are no list")
    for record in records:
        if not isinstance(record, dict) or record.get("eventSource") != "aws:s3":
            raise NotUnderstoodError("a record is none of S3")
        if str(record.get("eventName", "")).removeprefix("s3:").startswith(_CREATED):
            # A blank is + and all but letters is %XX, in UTF-8.
            yield _name(record.get("s3"), decode=True)


def _read_eventbridge(document: Mapping[str, Any]) -> tuple[NewObject, ...]:
    if document.get("detail-type") not in _CREATED_IN_EVENTBRIDGE:
        return ()
    return (_name(document.get("detail"), decode=False),)


def _name(place: Any, *, decode: bool) -> NewObject:
    try:
        bucket, key = place["bucket"]["name"], place["object"]["key"]
    except (TypeError, KeyError):
        raise NotUnderstoodError("a record names no bucket and key") from None
    if not (isinstance(bucket, str) and isinstance(key, str) and bucket and key):
        raise NotUnderstoodError("a record names no bucket and key")
    return NewObject(bucket, unquote_plus(key, errors="replace") if decode else key)


def concerning(objects: Iterable[NewObject], bucket: str, prefix: str, ours: str) -> list[NewObject]:
    """Return the objects that a run over bucket and prefix would find.

    Args:
        ours: `s3://` address below which runs keep their own files.
    """
    return [
        found
        for found in objects
        if found.bucket == bucket
        and found.key.startswith(prefix)
        and not found.key.endswith("/")  # a folder that a console made
        and not f"s3://{found.bucket}/{found.key}".startswith(f"{ours}/")
    ]
