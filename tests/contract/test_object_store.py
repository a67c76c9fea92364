"""The folder and the real S3 client keep the same contract; S3's errors are named by what to do about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber
from conftest import Night

from image_analyzer import wiring
from image_analyzer.clients.folder_store import FolderStore
from image_analyzer.clients.s3_store import S3Store, make_client, read_date
from image_analyzer.errors import FatalError, ItemError, RetryableError
from image_analyzer.ports import ObjectStore
from image_analyzer.records import ErrorCode

KEYS = ["a b.jpg", "ünï/çødé 猫.png", "plus+and%20percent&amp;.jpg", "deep/er/x.JPG"]


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, make_night: Callable[..., Night]) -> tuple[ObjectStore, str]:
    """A store and a prefix of one's own."""
    night = make_night()
    if request.param == "folder":
        return FolderStore(tmp_path), "p/"
    return wiring.make_store(night.settings()), night.settings().s3_prefix


def test_what_is_written_is_listed_and_read(place: tuple[ObjectStore, str]) -> None:
    """Awkward keys survive; the listing is in key order and tells size and ETag; other prefixes are not in it."""
    store, prefix = place
    for number, key in enumerate(KEYS):
        store.write(f"s3://images/{prefix}{key}", b"x" * number, "image/jpeg")
    store.write(f"s3://images/other-{prefix}z.jpg", b"", "image/jpeg")

    listed = list(store.list_objects("images", prefix))

    assert sorted(prefix + key for key in KEYS) == [obj.key for obj in listed]
    assert {prefix + key: number for number, key in enumerate(KEYS)} == {obj.key: obj.size_bytes for obj in listed}
    assert all(obj.etag and '"' not in obj.etag and obj.last_modified_at.tzinfo for obj in listed)
    assert b"xxx" == store.read(f"s3://images/{prefix}{KEYS[3]}")


def test_an_open_object_is_what_the_listing_says(place: tuple[ObjectStore, str]) -> None:
    """Reference and bytes of a read belong together, and to the listing while nothing changes."""
    store, prefix = place
    store.write(f"s3://images/{prefix}a.jpg", b"content", "image/jpeg")
    (listed,) = store.list_objects("images", prefix)

    with store.open_object("images", listed.key) as (ref, body):
        assert (listed, b"content") == (ref, body.read())


def test_what_is_not_there(place: tuple[ObjectStore, str]) -> None:
    """A file of ours is None, an original is an ItemError, deleting is fine."""
    store, prefix = place
    store.delete(f"s3://images/{prefix}nothing")

    assert store.read(f"s3://images/{prefix}nothing") is None
    with pytest.raises(ItemError) as caught, store.open_object("images", f"{prefix}nothing"):
        pass
    assert ErrorCode.OBJECT_DELETED == caught.value.code


def test_an_age_is_by_the_stores_clock(place: tuple[ObjectStore, str]) -> None:
    """A file that was just written is seconds old, and older a second later; one that is not there has none."""
    store, prefix = place
    store.write(f"s3://images/{prefix}claim", b"x", "text/plain")
    first = store.read_with_age(f"s3://images/{prefix}claim")
    time.sleep(1.5)
    later = store.read_with_age(f"s3://images/{prefix}claim")

    assert first is not None
    assert later is not None
    assert (b"x", b"x") == (first[0], later[0])
    assert -1 <= first[1] < later[1] < 60
    assert store.read_with_age(f"s3://images/{prefix}nothing") is None


@pytest.mark.parametrize("header", ["{}", "{}, {}", "", "soon"])
def test_a_date_is_read_whatever_proxies_made_of_it(header: str) -> None:
    """Two joined dates are one; none, or none that can be read, is our own time."""
    now = datetime.now(UTC)

    assert abs((read_date(header.replace("{}", format_datetime(now, usegmt=True))) - now).total_seconds()) < 2


def test_one_of_many_creates(place: tuple[ObjectStore, str]) -> None:
    """Of eight that create the same file at once, one is told so, and its content stays."""
    store, prefix = place
    uri = f"s3://images/{prefix}claim"
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda name: store.create(uri, name), [bytes([65 + i]) for i in range(8)]))

    assert 1 == sum(told)
    assert bytes([65 + told.index(True)]) == store.read(uri)
    store.delete(uri)
    assert store.create(uri, b"again")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, ItemError),
        ("InvalidObjectState", 403, ItemError),
        ("NoSuchKey", 404, ItemError),
        ("InvalidAccessKeyId", 403, FatalError),
        ("ExpiredToken", 400, FatalError),
        ("SlowDown", 503, RetryableError),
        ("InternalError", 500, RetryableError),
    ],
)
def test_each_answer_of_s3_has_its_kind(code: str, status: int, expected: type[Exception]) -> None:
    """One closed object is its own fault; a wrong key stops; a busy server is asked again."""
    client: Any = make_client(region="us-east-1", access_key_id="k", secret_access_key="very-secret")
    with Stubber(client) as stub:
        stub.add_client_error("get_object", code, http_status_code=status)
        with pytest.raises(expected) as caught, S3Store(client).open_object("b", "k"):
            pass

    assert "very-secret" not in str(caught.value)


def test_a_listing_that_is_refused_is_fatal() -> None:
    """Without the right to list there is no night."""
    client: Any = make_client(region="us-east-1", access_key_id="k", secret_access_key="s")
    with Stubber(client) as stub:
        stub.add_client_error("list_objects_v2", "AccessDenied", http_status_code=403)
        with pytest.raises(FatalError, match="AccessDenied"):
            list(S3Store(client).list_objects("b", "p"))


def test_whoever_comes_second_reads_what_the_first_wrote_whole(place: tuple[ObjectStore, str]) -> None:
    """Of many who create one object at once one does, and the others find it complete: a claim is never read half."""
    store, prefix = place
    content = b"x" * 20_000

    def race(uri: str) -> bytes | None:
        return None if store.create(uri, content) else store.read(uri)

    for number in range(25):
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(race, [f"s3://images/{prefix}{number}"] * 8))
        assert [None] == [one for one in found if one is None], "one creates it"
        assert {None, content} == set(found)
    assert 25 == len(list(store.list_objects("images", prefix)))
