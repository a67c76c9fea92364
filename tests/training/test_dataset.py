"""Which pictures a model learns from, and which it is judged by."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import paint, photograph
from PIL import Image

from image_analyzer.errors import ConfigurationError
from image_analyzer.fingerprints import Fingerprint
from image_analyzer.hints import preprocess
from image_analyzer.records import ObjectRef
from image_analyzer.steps.prepare import PrepareOptions, describe_bytes
from image_analyzer.training.crops import SEES, Crop, Pixels, read_crops
from image_analyzer.training.dataset import (
    Example,
    Shares,
    Side,
    check_classes,
    class_weights,
    join_contents,
    make_manifest,
    split,
)
from image_analyzer.training.judging import Chosen
from image_analyzer.training.network import make_batches
from image_analyzer.training.scores import match_name, score
from image_analyzer.training.sources import Sample, read_folder, read_labels, read_results

READING = PrepareOptions(max_image_bytes=1_000_000, max_image_pixels=1_000_000, thumbnail_px=512, threads=2)


def example(number: int, label: str = "cat", **changes: Any) -> Example:
    """Return a picture that looks like no other."""
    sha256 = hashlib.sha256(f"{label}{number}".encode()).hexdigest()
    looks = Fingerprint(hashlib.sha256(sha256.encode()).hexdigest()[:16], "#808080")
    return Example(**{"sha256": sha256, "label": label, "names": (f"{label}/{number}.jpg",), "looks": looks, **changes})


def test_each_class_is_split_alike_and_always_in_the_same_way() -> None:
    """Shares hold in every class; the split follows from the contents and the seed, not from order or names."""
    examples = [example(n) for n in range(40)] + [example(n, "dog") for n in range(20)]

    sides = split(examples, Shares(validation=0.1, test=0.2), seed=1)

    counts = Counter((e.label, sides[e.sha256]) for e in examples)
    assert {("cat", Side.TEST): 8, ("cat", Side.VALIDATION): 4, ("cat", Side.TRAIN): 28,
            ("dog", Side.TEST): 4, ("dog", Side.VALIDATION): 2, ("dog", Side.TRAIN): 14} == counts  # fmt: skip
    assert sides == split(examples[::-1], Shares(validation=0.1, test=0.2), seed=1)
    assert sides != split(examples, Shares(validation=0.1, test=0.2), seed=2)


def test_versions_of_a_picture_stay_on_one_side() -> None:
    """Near duplicates, also by way of a third, are never learnt from and judged by."""
    chain = ["00000000ffffffff", "0000000fffffffff", "000000ffffffffff"]
    family = [example(100 + n, looks=Fingerprint(phash, "#808080")) for n, phash in enumerate(chain)]

    for seed in range(20):
        sides = split([*(example(n) for n in range(20)), *family], Shares(), seed)
        assert 1 == len({sides[e.sha256] for e in family})


def test_versions_are_found_wherever_they_differ_and_however_they_are_labelled() -> None:
    """Eight bits spread over the whole hash; a version in another class is learnt from with it, and judged by nowhere."""
    spread = Fingerprint("0101010101010101", "#808080")
    plain = Fingerprint("0000000000000000", "#808080")
    family = [example(100, looks=plain), example(101, looks=spread), example(102, "dog", looks=plain)]
    others = [*(example(n) for n in range(20)), *(example(n, "dog") for n in range(20, 40))]

    for seed in range(20):
        sides = split([*others, *family[:2]], Shares(), seed)
        assert sides[family[0].sha256] is sides[family[1].sha256]
        sides = split([*others, *family], Shares(), seed)
        assert {Side.TRAIN} == {sides[e.sha256] for e in family}


def test_a_burst_of_one_scene_fills_no_side() -> None:
    """Forty shots of one thing among sixty pictures are learnt from: they would decide every figure."""
    burst = [example(100 + n, looks=Fingerprint("00000000ffffffff", "#808080")) for n in range(40)]

    for seed in range(20):
        counts = Counter(split([*(example(n) for n in range(20)), *burst], Shares(), seed).values())
        assert (9, 9, 42) == tuple(counts[side] for side in (Side.TEST, Side.VALIDATION, Side.TRAIN))


def test_what_a_data_set_holds_out_is_what_is_judged_by() -> None:
    """Pictures of its own test half are the test side, all of them and no others."""
    examples = [example(n, held_out=n < 5) for n in range(20)]

    sides = split(examples, Shares(), seed=1)

    assert {e.sha256 for e in examples[:5]} == {sha256 for sha256, side in sides.items() if side is Side.TEST}


def test_the_same_bytes_are_one_picture_and_have_one_label() -> None:
    """Copies count once under all their names; a picture that is in two classes is left out, and said."""
    copy = example(1, names=("cat/copy.jpg",))
    twice = [example(7), example(7, sha256=example(7).sha256, label="dog", names=("dog/7.jpg",))]

    joined, faults = join_contents([example(1), copy, *twice])

    assert [("cat/1.jpg", "cat/copy.jpg")] == [e.names for e in joined]
    assert [("cat/7.jpg", "two_labels"), ("dog/7.jpg", "two_labels")] == [(f.name, f.code) for f in faults]


def test_a_rare_class_weighs_more() -> None:
    """Weights times pictures are the same for each class, and 1 on average."""
    examples = [example(n) for n in range(30)] + [example(n, "dog") for n in range(10)]
    sides = dict.fromkeys((e.sha256 for e in examples), Side.TRAIN)

    weights = class_weights(examples, sides, ("cat", "dog"))

    assert 30 * weights[0] == 10 * weights[1] == 20


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([example(n) for n in range(9)], "two classes"),
        ([*(example(n) for n in range(9)), example(1, "dog")], r"dog \(1\)"),
    ],
)
def test_a_data_set_that_will_not_do_is_refused(examples: list[Example], said: str) -> None:
    """One class, or too few pictures of one: the message names it."""
    with pytest.raises(ConfigurationError, match=said):
        check_classes(examples)


def test_a_class_of_versions_of_one_picture_is_refused() -> None:
    """There would be nothing to judge by."""
    same = [example(n, looks=Fingerprint("00000000ffffffff", "#808080")) for n in range(9)]
    with pytest.raises(ConfigurationError, match="look-alikes"):
        split([*same, *(example(n, "dog") for n in range(9))], Shares(), 1)


def test_equal_data_sets_have_equal_manifests() -> None:
    """The digest of a data set tells contents, labels and split, not the order in which files were found."""
    examples, _ = join_contents(example(n, label) for n in range(9) for label in ("cat", "dog"))
    again, _ = join_contents(example(n, label) for label in ("dog", "cat") for n in reversed(range(9)))

    one, other = (make_manifest(e, split(e, Shares(), 1)) for e in (examples, again))

    assert one == other
    assert one != make_manifest(examples, split(examples, Shares(), 2))


def test_a_network_is_trained_on_what_the_nightly_run_shows_it(tmp_path: Path) -> None:
    """Bit for bit: the input of training is `preprocess` of the thumbnail that `prepare` makes, turned phone photographs too."""
    image = Image.open(io.BytesIO(photograph("coffee.png")))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "turned.jpg"
    image.save(file, exif=exif)
    content = file.read_bytes()

    (crop,) = read_crops([Sample("turned.jpg", "cup", lambda: content)], SEES, READING)
    assert isinstance(crop, Crop)
    pixels = Pixels(tmp_path / "pixels.bin", 1, SEES)
    pixels.put(0, crop.pixels)

    obj = ObjectRef(bucket="b", key="turned.jpg", etag="", size_bytes=1, last_modified_at="2026-01-01T00:00:00Z")
    seen = describe_bytes(obj, content, "x", "s3://b/pack", READING)
    shown = next(iter(make_batches(pixels, Chosen(np.array([0]), np.array([0])), 1, seed=None)))[0].numpy()
    assert np.array_equal(preprocess(seen.thumbnail or b"", SEES), shown[0])


def test_files_that_are_no_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    """Broken, empty, unreadable, too large: each is a fault with its reason, and the others are read."""
    for name, content in {"ok.jpg": paint("red"), "cut.jpg": paint("red")[:300], "no.txt": b"hello", "empty.jpg": b"",
                          "large.jpg": bytes(1_000_001)}.items():  # fmt: skip
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / "cat" / name).write_bytes(content)
    (tmp_path / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    samples = [*read_folder(tmp_path), Sample("cat/gone.jpg", "cat", (tmp_path / "nowhere").read_bytes)]

    outcomes = list(read_crops(samples, SEES, READING))

    assert {("cat/cut.jpg", "truncated"), ("cat/no.txt", "unsupported_type"), ("cat/empty.jpg", "empty_file"),
            ("cat/large.jpg", "too_large"), ("cat/gone.jpg", "unreadable")} == {
        (o.name, o.code) for o in outcomes if not isinstance(o, Crop)
    }  # fmt: skip
    assert 1 == sum(isinstance(o, Crop) for o in outcomes)


def test_published_halves_are_kept_apart(tmp_path: Path) -> None:
    """`train/CLASS` and `val/CLASS`, Imagenette's shape; hidden files and files beside the classes are not pictures."""
    for name in ("train/dog/1.jpg", "val/dog/2.jpg", "train/.DS_Store", "train/dog/.x.jpg", "notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")

    found = {(s.name, s.label, s.held_out) for s in read_folder(tmp_path)}

    assert {("train/dog/1.jpg", "dog", False), ("val/dog/2.jpg", "dog", True)} == found
    with pytest.raises(ConfigurationError, match="class folders"):
        read_folder(tmp_path / "train" / "dog")


def test_rows_are_labelled_by_people_or_by_sure_hints(tmp_path: Path) -> None:
    """With a csv its labels count, by address or hash; without one hints that are sure enough; rows without thumbnails never."""

    def row(name: str, score_: float | None, **more: Any) -> dict[str, Any]:
        return {"IMAGE_URI": f"s3://b/{name}", "SHA256": name * 2, "THUMBNAIL_URI": f"s3://b/pack#{name * 2}.jpg",
                "PREDICTED_LABEL": "pug", "PREDICTED_SCORE": score_, **more}  # fmt: skip

    rows = [row("a", 0.95), row("b", 0.5), row("c", None), row("d", 0.99, THUMBNAIL_URI=None)]
    file = tmp_path / "labels.csv"
    file.write_text("\ufeffImage_URI,Label\ns3://b/b,cat\ns3://b/d,dog\n")
    nothing: Callable[..., Any] = lambda *_: None  # noqa: E731

    by_hint = read_results(nothing, rows, None, 0.9)  # type: ignore[arg-type]
    by_people = read_results(nothing, rows, read_labels(file), 0.9)  # type: ignore[arg-type]

    assert [("s3://b/a", "pug", "aa")] == [(s.name, s.label, s.thumbnail_of) for s in by_hint]
    assert [("s3://b/b", "cat", "bb")] == [(s.name, s.label, s.thumbnail_of) for s in by_people]
    file.write_text("picture,label\na,b\n")
    with pytest.raises(ConfigurationError, match="image_uri"):
        read_labels(file)


def test_scores_count_what_they_say() -> None:
    """A name outside the data set is a wrong answer; balanced accuracy counts classes alike."""
    found = score(
        ("cat", "dog"), ["cat", "cat", "cat", "dog"], ["cat", "cat", "tiger", "cat"], [0.9, 0.5, 0.7, 0.8], 0.6
    )

    assert (0.5, 1 / 3, 0.75) == (found.accuracy, found.balanced_accuracy, found.hinted)
    assert 1 / 3 == found.hinted_right
    assert ((2, 0, 1), (1, 0, 0)) == found.confusion
    assert [2 / 3, 0.0] == [c.recall for c in found.classes]


@pytest.mark.parametrize(
    ("label", "meant"), [("Roses", "rose"), ("german_shepherd", "German Shepherd"), ("bus", "bus")]
)
def test_a_foreign_models_words_are_matched_by_name(label: str, meant: str) -> None:
    """Case, underscores and a plural do not matter."""
    assert meant == match_name(label, ["rose", "German Shepherd", "bus"])
    assert ["rose", "roses", "Rose"] == [
        match_name(name, ["rose", "roses", "Rose"]) for name in ("rose", "roses", "Rose")
    ]
