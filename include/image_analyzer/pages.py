"""Loads the templates of HTML pages, all of them escaped: captions and file names are other people's text."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template


@cache
def load_template(name: str) -> Template:
    """Return `templates/<name>.html.j2`; a variable that is missing is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (files("image_analyzer") / "templates" / f"{name}.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)
