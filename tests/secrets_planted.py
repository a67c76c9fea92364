"""Secrets that tests plant, and a look for them in whatever was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from image_analyzer.local.openai_control import API_KEY
from image_analyzer.local.stack import SECRET_KEY

SNOWFLAKE_PASSWORD = "planted-password-4711"
# What no client uses here, and every process is given.
PLANTED = {
    "SNOWFLAKE_PASSWORD": SNOWFLAKE_PASSWORD,
    "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "planted-passphrase-4711",
    "SNOWFLAKE_TOKEN": "planted-token-4711",
}
_ALL = (API_KEY, SECRET_KEY, *PLANTED.values())


def leaks(places: Iterable[Path], more: Iterable[str] = ()) -> list[str]:
    """Return files, of folders all files below, that hold a planted secret or one of `more`: logs, databases, whatever."""
    files = [file for place in places for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()]
    assert files, "nothing was looked at"
    secrets = [text.encode() for text in (*_ALL, *more)]
    contents = ((file, file.read_bytes()) for file in files)
    return [f"{file}: {secret!r}" for file, content in contents for secret in secrets if secret in content]
