"""Addresses and digests: S3 URIs, the folder of a run, the ledger's keys, the hash of a row."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple
from urllib.parse import quote

from image_analyzer.records import ContentKey

# What a re-run may change without the row being another row.
_NOT_CONTENT = frozenset({"row_hash", "run_id", "thumbnail_uri"})


class Location(NamedTuple):
    """Bucket and key of an S3 address."""

    bucket: str
    key: str


def parse_s3_uri(uri: str) -> Location:
    """Split `s3://bucket/key`.

    Raises:
        ValueError: It is not such an address.
    """
    match = re.fullmatch(r"s3://([^/]+)/(.*)", uri, re.DOTALL)
    if match is None:
        raise ValueError(f"{uri!r} is not of the form s3://bucket/key")
    return Location(*match.groups())


def run_folder_name(run_id: str) -> str:
    """Return a name for the run's folder: Airflow's run ids hold `:` and `+`, which tools escape in many ways.

    Different run ids give different names: a digest of the id ends the name.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", run_id).strip("-")[:80]
    return f"{slug}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def ledger_path(key: ContentKey) -> str:
    """Return where the receipt of a content key lies, below the work prefix. Escaped: a model name may hold slashes."""
    parts = (key.prompt_version, key.model, key.detail, key.language, key.sha256)
    return "ledger/" + "/".join(quote(part, safe="") for part in parts) + ".json"


def row_hash(columns: dict[str, Any]) -> str:
    """Return the digest of what a result row says; a row with the same digest is not written again.

    Args:
        columns: JSON-able values by column name. The run and where its thumbnail lies do not count.
    """
    content = {name: value for name, value in columns.items() if name not in _NOT_CONTENT}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
