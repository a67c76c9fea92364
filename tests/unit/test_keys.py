"""Addresses and digests."""

import pytest

from image_analyzer.keys import ledger_path, parse_s3_uri, row_hash, run_folder_name
from image_analyzer.records import ContentKey


def test_run_ids_give_plain_distinct_folder_names() -> None:
    """Airflow's run ids hold `:` and `+`; two that differ only there still get two folders."""
    one, two = (
        run_folder_name("manual__2026-01-01T00:00:00+00:00"),
        run_folder_name("manual__2026-01-01T00:00:00-00:00"),
    )

    assert one != two
    assert not set(one) & set(":+ /")


@pytest.mark.parametrize("uri", ["", "s3://", "http://b/k", "s3:///k"])
def test_a_wrong_address_is_refused(uri: str) -> None:
    """What is no s3 address raises and names itself."""
    with pytest.raises(ValueError, match="s3://bucket/key"):
        parse_s3_uri(uri)


def test_keys_may_hold_anything() -> None:
    """A key with line breaks, spaces and hashes survives."""
    assert ("b", "a b/ü#\n.jpg") == parse_s3_uri("s3://b/a b/ü#\n.jpg")


def test_each_part_of_the_content_key_makes_another_receipt() -> None:
    """Other bytes, language, prompt, model or detail is another payment; a slash in a model's name stays a name."""
    key = ContentKey(sha256="aa", language="en", prompt_version="1", model="org/model", detail="high")
    others = [key.model_copy(update={name: "x"}) for name in ContentKey.model_fields]

    assert 6 == len({ledger_path(k) for k in [key, *others]})
    assert "ledger/1/org%2Fmodel/high/en/aa.json" == ledger_path(key)


def test_the_row_hash_is_about_content() -> None:
    """The run and the place of the thumbnail do not make a row another row; a caption does."""
    row = {"gpt_summary": "A.", "run_id": "1", "thumbnail_uri": "s3://x"}

    assert row_hash(row) == row_hash({**row, "run_id": "2", "thumbnail_uri": "s3://y"})
    assert row_hash(row) != row_hash({**row, "gpt_summary": "B."})
