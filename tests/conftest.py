"""Fixtures for all tests: the embedded stack, test assets, generated pictures. No socket beyond loopback is allowed."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from image_analyzer.local.stack import Stack, control_openai
from image_analyzer.settings import Settings

# Settings of the machine that runs the tests must not change them.
for _name in list(os.environ):
    if _name.lower() in Settings.model_fields or _name.startswith("AIRFLOW_"):
        del os.environ[_name]
Settings.model_config["env_file"] = None

ASSETS_VARIABLE = "IMAGE_ANALYZER_TEST_ASSETS"


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a third of the time a test waits for what it has started."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real photographs and awkward files; tests that need it say what they skip where it is not there."""
    folder = Path(os.environ.get(ASSETS_VARIABLE, ""))
    if not os.environ.get(ASSETS_VARIABLE) or not folder.is_dir():
        pytest.skip(f"{ASSETS_VARIABLE} names no folder: real photographs and awkward files are not tested")
    return folder


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The embedded stack, started once for all tests."""
    running = Stack(tmp_path_factory.mktemp("stack"))
    running.up()
    yield running
    running.down()


class Night:
    """One test's own prefix, schema and settings on the shared stack.

    Attributes:
        environment: What a child process needs to be a client of the stack.
    """

    def __init__(self, stack: Stack, name: str, openai: bool, **changes: str) -> None:
        self.environment = {
            **stack.environment(),
            **(stack.openai_environment() if openai else {}),
            "S3_PREFIX": f"{name}/incoming/",
            "WORK_URI": f"s3://images/{name}/work",
            "SNOWFLAKE_SCHEMA": name.upper(),
            **changes,
        }
        self.base_url = stack.openai_environment()["OPENAI_BASE_URL"]

    def settings(self, **changes: Any) -> Settings:
        """Return the settings as the pipeline would read them."""
        fields = {k.lower(): v for k, v in self.environment.items() if k.lower() in Settings.model_fields}
        return Settings(**{**fields, **changes})

    def order(self, *faults: dict[str, Any]) -> None:
        """Order faults of the OpenAI test server."""
        control_openai(self.base_url, "faults", list(faults))

    def calls(self) -> list[dict[str, Any]]:
        """Return what arrived at the OpenAI test server since the test began."""
        found: list[dict[str, Any]] = control_openai(self.base_url, "calls")["calls"]
        return found


@pytest.fixture
def make_night(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Night]:
    """Make a night of one's own; the test server is reset."""
    for name in ("REQUESTS_CA_BUNDLE", "SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(name, stack.environment()[name])

    def make(*, openai: bool = True, latency_s: float = 0, **changes: str) -> Night:
        night = Night(stack, f"t{uuid.uuid4().hex[:12]}", openai, **changes)
        control_openai(night.base_url, "reset", {"latency_s": latency_s})
        return night

    return make


@pytest.fixture
def night(make_night: Callable[..., Night]) -> Night:
    """A night with the OpenAI test server as captioner."""
    return make_night()


def paint(colour: str, size: tuple[int, int] = (64, 48), fmt: str = "JPEG", **save: Any) -> bytes:
    """Return a picture of one colour with a darker corner, so that its orientation can be seen."""
    image = Image.new("RGB", size, colour)
    image.paste("black", (0, 0, size[0] // 4, size[1] // 4))
    buffer = io.BytesIO()
    image.save(buffer, fmt, **save)
    return buffer.getvalue()


def photograph(name: str) -> bytes:
    """Return one of the demonstration's real photographs as a JPEG."""
    from image_analyzer.local.pictures import demo_pictures

    content = next(picture.content for picture in demo_pictures() if picture.name.endswith(f"/{name}"))
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
