"""The demonstration, as a new user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def test_the_demonstration_twice(tmp_path: Path) -> None:
    """The first time shows rows and a contact sheet; the second finds nothing new; nothing keeps running; hints stay private."""

    def demo() -> str:
        command = [str(Path(sys.executable).parent / "image-analyzer"), "local", "demo"]
        environment = {**os.environ, "LOCAL_STACK_DIR": str(tmp_path / "stack"), "COLUMNS": "160"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout

    first, second = demo(), demo()

    assert "16 objects, 48 rows" in first
    assert "39 ok" in first
    assert "0 paid caption calls" in first
    for name, word in [
        ("chelsea.png", "Egyptian cat: "),
        ("drawing.svg", "unsupported_type"),
        ("empty.jpg", "empty_file"),
    ]:
        assert name in first
        assert word in first
    sheet = (tmp_path / "stack" / "contact_sheet.html").read_text()
    assert 16 == sheet.count('<div class="name">')
    assert 13 == sheet.count("data:image/jpeg;base64,") + sheet.count("no thumbnail") - 3
    assert "honeycomb" not in sheet  # a weak label of the flower
    assert "No new pictures. 0 caption calls, 0 rows changed." in second
    assert (tmp_path / "stack" / "logs" / "demo.log").stat().st_size > 1000
    assert not (tmp_path / "stack" / "stack.json").exists()
