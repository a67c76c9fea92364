"""Starts a face as users do, in a process of its own, on a night's settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from conftest import Night
from secrets_planted import PLANTED, leaks

from image_analyzer.local.stack import free_ports

COMMAND = str(Path(sys.executable).parent / "image-analyzer")


class Served:
    """A face that runs.

    Args:
        command: `image-analyzer` and what follows it; the port is added.
        answers: Path that answers once it is up.
        log: Its output; the process works in the folder of this file.
        port: Any free one if 0.
    """

    def __init__(
        self, night: Night, command: list[str], answers: str, log: Path, more: Mapping[str, str], port: int = 0
    ) -> None:
        port = port or free_ports(1)[0]
        self.url, self.log = f"http://127.0.0.1:{port}", log
        environment = {**os.environ, **night.environment, **PLANTED, **more}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [COMMAND, *command, "--port", str(port)],
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=log.parent,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + answers, timeout=2)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"{command} did not start: {log.read_text()[-2_000:]}")

    def stop(self) -> int:
        """End it as a service manager does; return its exit code. Its log holds no secret."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        assert [] == leaks([self.log])
        return code
