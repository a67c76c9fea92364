"""Pictures for the demonstration: real photographs out of packages that ship them, and some that are awkward."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from image_analyzer.errors import ConfigurationError


class DemoPicture(NamedTuple):
    """One object to land.

    Attributes:
        credit: Origin and licence, for people who pass the picture on.
    """

    name: str
    content: bytes
    credit: str


_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets", "images")
# Licences as the packages' own READMEs and scikit-image's `data` documentation state them.
_PHOTOGRAPHS = [
    (_SKIMAGE, "astronaut.png", "NASA, public domain"),
    (_SKIMAGE, "camera.png", "Lav Varshney, CC0"),
    (_SKIMAGE, "chelsea.png", "Stéfan van der Walt, CC0"),
    (_SKIMAGE, "coffee.png", "Rachel Michetti, CC0"),
    (_SKIMAGE, "coins.png", "Brooklyn Museum, no known copyright restrictions"),
    (_SKIMAGE, "hubble_deep_field.jpg", "NASA, public domain"),
    (_SKIMAGE, "moon.png", "NASA, public domain"),
    (_SKIMAGE, "retina.jpg", "Häggström, CC0"),
    (_SKIMAGE, "rocket.jpg", "SpaceX, CC0"),
    (_SKLEARN, "china.jpg", "danielbuechele, CC-BY-2.0"),
    (_SKLEARN, "flower.jpg", "vultilion, CC-BY-2.0"),
]


def demo_pictures() -> Iterator[DemoPicture]:
    """Yield eleven photographs, one of them twice under another name, and four files that are no sound picture.

    Raises:
        ConfigurationError: A package that ships them is not installed.
    """
    photographs = {}
    for package, name, credit in _PHOTOGRAPHS:
        photographs[name] = _folder(package).joinpath(name).read_bytes()
        yield DemoPicture(f"photos/{name}", photographs[name], credit)
    coffee, rocket = photographs["coffee.png"], photographs["rocket.jpg"]
    yield DemoPicture("photos/coffee-copy.png", coffee, "the same bytes as coffee.png")
    yield DemoPicture("awkward/rocket-named.png", rocket + b"\0", "a JPEG that claims to be a PNG")
    yield DemoPicture("awkward/truncated.jpg", rocket[: len(rocket) // 3], "a JPEG cut off")
    yield DemoPicture("awkward/empty.jpg", b"", "no bytes")
    yield DemoPicture("awkward/drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG")


def _folder(package: tuple[str, ...]) -> Path:
    # Located without importing: scikit-learn takes a second to load.
    spec = find_spec(package[0])
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"{package[0]} is not installed: pip install -r requirements-demo.txt")
    return Path(spec.submodule_search_locations[0]).joinpath(*package[1:])
