"""Documents lead where they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from licences import COPYLEFT, locked_names

from image_analyzer.settings import PROJECT_ROOT

DOCUMENTS = [PROJECT_ROOT / "README.md", PROJECT_ROOT / "models" / "README.md", *(PROJECT_ROOT / "docs").rglob("*.md")]
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """Files are there, and headings in them."""
    for place, heading in _LINK.findall(document.read_text()):
        file = (document.parent / place) if place else document
        assert file.exists(), place
        if heading:
            slugs = [
                re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
                for title in _HEADING.findall(file.read_text())
            ]
            assert heading in slugs, f"{place}#{heading}"


def test_the_licences_are_of_what_is_locked() -> None:
    """Each package has a row, no row is of another time, and what is copyleft is named apart; nothing is AGPL."""
    apart, every = (PROJECT_ROOT / "docs" / "licences.md").read_text().split("\nAll:\n")
    rows = dict(re.findall(r"^\| ([a-z0-9._-]+) \| (.+) \|$", every, re.MULTILINE))
    rows.pop("package")

    assert locked_names() == set(rows)
    named = re.findall(r"^\| ([a-z0-9._-]+) \|", apart, re.MULTILINE)[1:]
    assert [name for name, licence in rows.items() if COPYLEFT.search(licence)] == named
    assert not [name for name, licence in rows.items() if "AGPL" in licence or "Affero" in licence]
