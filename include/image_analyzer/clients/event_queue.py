"""The SQS queue into which S3 tells of new objects."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from image_analyzer.errors import RetryableError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)
_AT_ONCE = 10  # SQS' most
# Longer than Airflow may take to store what a message led to (`shared_stream`: 300 s), or it would come twice.
_HIDDEN_S = 400


def make_queue_client(
    *, region: str, endpoint_url: str, access_key_id: str, secret_access_key: str, session_token: str
) -> SQSClient:
    """Build the boto3 client; without keys boto3 looks for credentials in its usual places."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "sqs",
        region_name=region,
        endpoint_url=endpoint_url or None,
        aws_access_key_id=access_key_id or None,
        aws_secret_access_key=secret_access_key or None,
        aws_session_token=session_token or None,
        config=Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=10, read_timeout=60),
    )


class Message(NamedTuple):
    """One message, hidden from others for a while; `receipt` deletes it."""

    body: str
    receipt: str


class EventQueue:
    """A queue.

    Args:
        client: boto3's.
        url: Of the queue.
    """

    def __init__(self, client: SQSClient, url: str) -> None:
        self._client, self._url = client, url

    def receive(self, wait_s: int) -> list[Message]:
        """Return up to ten messages, as soon as there is one; none if none comes in time, at most 20 s.

        Raises:
            RetryableError: SQS does not answer, or refuses.
        """
        with _mapped_errors(self._url):
            found = self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_AT_ONCE, WaitTimeSeconds=wait_s, VisibilityTimeout=_HIDDEN_S
            )
        return [Message(one.get("Body", ""), one.get("ReceiptHandle", "")) for one in found.get("Messages", ())]

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages. Those that SQS does not delete come again, which does no harm.

        Raises:
            RetryableError: SQS does not answer, or refuses.
        """
        for start in range(0, len(receipts), _AT_ONCE):
            entries = [{"Id": str(n), "ReceiptHandle": r} for n, r in enumerate(receipts[start : start + _AT_ONCE])]
            with _mapped_errors(self._url):
                answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)  # type: ignore[arg-type]
            if failed := answer.get("Failed"):
                log.warning("%d messages were not deleted and will come again", len(failed))


@contextmanager
def _mapped_errors(url: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise RetryableError(f"{url}: {error}") from None
