"""ObjectStore over boto3, and boto3's errors named by what to do about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

from image_analyzer.errors import FatalError, ItemError, RetryableError
from image_analyzer.keys import parse_s3_uri
from image_analyzer.ports import OpenObject
from image_analyzer.records import ErrorCode, ObjectRef

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# S3's code for one object -> ours. A key of its own or another owner may close one object and no other.
_OBJECT_CODES = {
    "NoSuchKey": (ErrorCode.OBJECT_DELETED, "deleted after it was listed"),
    "AccessDenied": (ErrorCode.ACCESS_DENIED, "S3 refuses this object: check its owner, its KMS key and our policy"),
    "InvalidObjectState": (ErrorCode.OBJECT_ARCHIVED, "archived: restore the object, then the next run reads it"),
}
_FATAL = frozenset(
    {
        "AccessDenied",
        "403",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "NoSuchBucket",
        "InvalidToken",
    }
)


class S3Store:
    """Objects and files in S3.

    Args:
        client: A boto3 S3 client; boto3's own retries are the only ones.
    """

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def list_objects(self, bucket: str, prefix: str) -> Iterator[ObjectRef]:
        """Yield the objects under a prefix in key order; folders' placeholders are left out."""
        with _mapped_errors(f"s3://{bucket}/{prefix}"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):
                        yield ObjectRef(
                            bucket=bucket,
                            key=entry["Key"],
                            etag=entry["ETag"].strip('"'),
                            size_bytes=entry["Size"],
                            last_modified_at=entry["LastModified"].replace(microsecond=0),
                        )

    @contextmanager
    def open_object(self, bucket: str, key: str) -> Iterator[OpenObject]:
        """Open the current version; what it is (ETag, size, time) comes from the same answer as its bytes."""
        with _mapped_errors(f"s3://{bucket}/{key}"):
            answer = self._get(bucket, key)
            ref = ObjectRef(
                bucket=bucket,
                key=key,
                etag=answer["ETag"].strip('"'),
                size_bytes=answer["ContentLength"],
                last_modified_at=answer["LastModified"].replace(microsecond=0),
            )
            try:
                yield OpenObject(ref, cast("Any", answer["Body"]))
            finally:
                answer["Body"].close()

    def _get(self, bucket: str, key: str) -> Any:
        """Ask for one object; a refusal that may be about this object alone is an `ItemError`."""
        from botocore.exceptions import ClientError

        try:
            return self._client.get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            code = _OBJECT_CODES.get(str(error.response.get("Error", {}).get("Code", "")))
            if code is None:
                raise
            raise ItemError(*code) from None

    def read(self, uri: str) -> bytes | None:
        """Return a file of ours; None if it is not there."""
        bucket, key = parse_s3_uri(uri)
        with _mapped_errors(uri):
            try:
                return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None

    def read_with_age(self, uri: str) -> tuple[bytes, float] | None:
        """Return a small file of ours and its age, both times out of the same answer."""
        bucket, key = parse_s3_uri(uri)
        with _mapped_errors(uri):
            try:
                answer = self._client.get_object(Bucket=bucket, Key=key)
                content = answer["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
        sent_at = read_date(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
        return content, (sent_at - answer["LastModified"]).total_seconds()

    def write(self, uri: str, content: bytes, content_type: str) -> None:
        """Write a file of ours whole."""
        bucket, key = parse_s3_uri(uri)
        with _mapped_errors(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=content, ContentType=content_type)

    def create(self, uri: str, content: bytes) -> bool:
        """Write a file of ours if there is none, by a conditional PUT."""
        from botocore.exceptions import ClientError

        bucket, key = parse_s3_uri(uri)
        with _mapped_errors(uri):
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
            except ClientError as error:
                # 412: it is there; 409: somebody else is writing it right now.
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                    return False
                raise
            return True

    def delete(self, uri: str) -> None:
        """Delete a file of ours; none there is fine."""
        bucket, key = parse_s3_uri(uri)
        with _mapped_errors(uri):
            self._client.delete_object(Bucket=bucket, Key=key)


def read_date(header: str) -> datetime:
    """Return the time in a `Date` header, of several that proxies left the first; our own time if there is none."""
    try:
        found = parsedate_to_datetime(header[: len("Mon, 01 Jan 2026 00:00:00 GMT")])
    except ValueError:
        return datetime.now(UTC)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


@contextmanager
def _mapped_errors(subject: str) -> Iterator[None]:
    """Turn boto3's errors into ours; the message names the object and never holds a credential."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except NoCredentialsError:
        raise FatalError(
            f"{subject}: no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or give the "
            "worker a role"
        ) from None
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _FATAL:
            raise FatalError(
                f"{subject}: S3 answers {code}; check the bucket, the credentials and their policy"
            ) from None
        raise RetryableError(f"{subject}: S3 answers {code or type(error).__name__}") from None
    except (BotoCoreError, HTTPError, ConnectionError, TimeoutError) as error:
        raise RetryableError(f"{subject}: {type(error).__name__} while talking to S3") from None


def make_client(
    *,
    region: str,
    endpoint_url: str = "",
    access_key_id: str = "",
    secret_access_key: str = "",
    session_token: str = "",
    connections: int = 32,
) -> S3Client:
    """Build the boto3 client; without keys boto3 looks for credentials in its usual places."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=connections,
        s3={"addressing_style": "path"} if endpoint_url else {},
    )
    return boto3.client(
        "s3",
        region_name=region,
        endpoint_url=endpoint_url or None,
        aws_access_key_id=access_key_id or None,
        aws_secret_access_key=secret_access_key or None,
        aws_session_token=session_token or None,
        config=config,
    )
