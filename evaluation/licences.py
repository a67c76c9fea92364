"""Prints the licences of all that is locked for production, as docs/licences.md: `make licences > docs/licences.md`.

What is known of a package comes from its own metadata, read by pip-licenses in this environment.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from image_analyzer.settings import PROJECT_ROOT

LOCKS = ("requirements.txt", "requirements-apps.txt", "requirements-train.txt")
# Whose metadata says nothing, by the licence file of the package or of its repository.
BY_HAND = {
    "huey": "MIT",
    "namex": "Apache-2.0",
    "openlineage-sql": "Apache-2.0",
    "skops": "MIT",
    # Not installed on Linux with a current Python, but locked for others.
    "async-timeout": "Apache-2.0",
    "httpx2-jsfetch": "BSD-3-Clause",
    "pywin32": "PSF-2.0",
    "pyyaml-ft": "MIT",
    "tensorflow": "Apache-2.0",
    "waitress": "ZPL-2.1",
}
COPYLEFT = re.compile(r"GPL|Mozilla|MPL|Artistic")

HEAD = """# Licences

What `requirements.txt` (Airflow image), `requirements-apps.txt` (add-on and service) and `requirements-train.txt` (training)
lock, by the packages' own metadata. Written by `make licences > docs/licences.md`; a test compares it with the locks.

All of them are used unchanged, as libraries, from the package index. Nothing is under the AGPL, and no part of the pipeline is
derived from a copyleft work. The ones that ask for more than a notice (`text-unidecode`, which Airflow needs, may be used under
the Artistic License):

"""


def locked_names() -> set[str]:
    """Return the names of all packages that are locked for production."""
    texts = (Path(PROJECT_ROOT / lock).read_text(encoding="utf-8") for lock in LOCKS)
    return {name for text in texts for name in re.findall(r"^([a-z0-9][a-z0-9._-]*)==", text, re.MULTILINE)}


def read_licences() -> dict[str, str]:
    """Return the licence of every package of this environment by its normalised name."""
    command = [str(Path(sys.executable).parent / "pip-licenses"), "--from=mixed", "--format=json", "--with-system"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    known = {re.sub(r"[-_.]+", "-", one["Name"]).lower(): one["License"] for one in found}
    return {**{name: licence for name, licence in known.items() if licence != "UNKNOWN"}, **BY_HAND}


def render(licences: dict[str, str]) -> str:
    """Return the page.

    Raises:
        KeyError: A package's licence is not known: look it up, and put it into BY_HAND.
    """
    rows = {name: licences[name] for name in sorted(locked_names())}
    asking = {name: licence for name, licence in rows.items() if COPYLEFT.search(licence)}
    return f"{HEAD}{_table(asking)}\nAll:\n\n{_table(rows)}"


def _table(rows: dict[str, str]) -> str:
    return "".join(
        ["| package | licence |\n|---|---|\n", *(f"| {name} | {licence} |\n" for name, licence in rows.items())]
    )


if __name__ == "__main__":
    sys.stdout.write(render(read_licences()))
