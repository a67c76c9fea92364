"""How a night is cut into batches."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from image_analyzer.records import ManifestEntry, ObjectRef, Steps
from image_analyzer.workarea import cut_batches, make_manifests, plan_batches, sibling_uri


def _entry(key: str, etag: str = "", size: int = 1) -> ManifestEntry:
    obj = ObjectRef(
        bucket="b", key=key, etag=etag or key, size_bytes=size, last_modified_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    return ManifestEntry(object=obj, languages=("en",))


def _keys(batches: list[tuple[ManifestEntry, ...]]) -> list[str]:
    return [entry.object.key for batch in batches for entry in batch]


def test_equal_objects_share_a_batch() -> None:
    """Objects with one ETag and size lie in one batch, so that one call captions them even on their first night."""
    entries = [_entry("a", "same"), _entry("b"), _entry("c"), _entry("d", "same")]

    batches = cut_batches(entries, 2)

    assert ["a", "d"] == [entry.object.key for entry in batches[0]]


@given(st.lists(st.integers(0, 30), max_size=120), st.integers(1, 10), st.integers(1, 10))
def test_no_object_is_lost_and_the_plan_fits(etags: list[int], size: int, most: int) -> None:
    """Whatever lands, every object is in exactly one batch and there are no more batches than Airflow maps."""
    entries = [_entry(f"k{i}", str(etag)) for i, etag in enumerate(etags)]

    used, batches = plan_batches(entries, size, most)

    assert sorted(e.object.key for e in entries) == sorted(_keys(batches))
    assert len(batches) <= most
    assert all(0 < len(batch) <= used for batch in batches)


def test_batch_ids_depend_on_the_plan_alone() -> None:
    """A discover that runs again on the same objects names the same batches; on others it writes over nothing."""
    _, batches = plan_batches([_entry(f"k{i}") for i in range(5)], 2, 1000)

    ids = [manifest.batch_id for manifest in make_manifests("run", Steps.CAPTIONS, batches)]

    again = [manifest.batch_id for manifest in make_manifests("run", Steps.CAPTIONS, batches)]
    other = make_manifests("run", Steps.CAPTIONS, [(_entry("other"),)])
    assert ["batch-0000", "batch-0001", "batch-0002"] == [name[:10] for name in ids]
    assert ids == again
    assert other[0].batch_id not in ids
    assert sibling_uri("s3://b/runs/r/batch-0000/manifest.json", "x") == "s3://b/runs/r/batch-0000/x"
