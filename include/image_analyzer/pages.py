"""Loads the templates of HTML pages, all of them escaped: captions and file names are other people's text."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def load_template(name: str) -> Template:
    """Return `templates/<name>.html.j2`; a variable that is missing is an error."""
    loader = PackageLoader("image_analyzer")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(f"{name}.html.j2")
