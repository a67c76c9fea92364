"""A process that does not outlive whoever started it."""

from __future__ import annotations

import os
import sys
import threading


def end_with_input() -> None:
    """End this process when its standard input is closed, which happens however its parent ends; begin to watch, and return."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    sys.stdin.read()
    os._exit(os.EX_TEMPFAIL)
