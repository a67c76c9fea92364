"""Which of the models of one name is the champion: who is better on pictures that neither has learnt from."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from image_analyzer.clients.mlflow_tracker import HINT_MODEL, MlflowTracker, Version
from image_analyzer.jsonl import load_lines
from image_analyzer.records import Record
from image_analyzer.training.dataset import ManifestLine, Side
from image_analyzer.training.judging import Chosen, Data, read_labels, score_folder
from image_analyzer.training.lookalikes import near_pairs

# With fewer, one picture decides.
_LEAST_PICTURES = 20
_LEAST_OF_CLASS = 3


class Contest(Record):
    """How a new model did beside the champion.

    Attributes:
        sentence: Says so for people.
        new, old: Balanced accuracy on the same pictures; None where there was nothing to compare.
    """

    won: bool
    sentence: str
    new: float | None = None
    old: float | None = None


def hold_contest(
    tracker: MlflowTracker,
    version: Version,
    folder: Path,
    data: Data,
    min_score: float,
) -> Contest:
    """Compare a new version with the champion of its name, and crown it if it is better.

    Args:
        folder: The new model, as the nightly run loads it.
        data: The new data set with its split.
    """
    champion = tracker.champion(version.registered_name)
    if champion is None:
        tracker.crown(version)
        return Contest(won=True, sentence="the first of its name is champion")
    if champion.run_id == version.run_id:
        return Contest(won=True, sentence="it is champion already")
    with tempfile.TemporaryDirectory() as scratch:
        theirs = tracker.fetch(champion.run_id, HINT_MODEL, Path(scratch))
        contest = _compare(tracker, champion, theirs, folder, data, min_score)
    if contest.won:
        tracker.crown(version)
    return contest


def _compare(
    tracker: MlflowTracker,
    champion: Version,
    theirs: Path,
    folder: Path,
    data: Data,
    min_score: float,
) -> Contest:
    who = f"champion {champion.folder_name} (version {champion.version})"
    known, knows = set(read_labels(theirs)), set(read_labels(folder))
    if lacking := known - knows:
        return Contest(
            won=False,
            sentence=f"{who} stays: it also knows {', '.join(sorted(lacking))}; train under another --name",
        )
    fair = _fair_pictures(tracker, champion, data, known)
    counts = Counter(data.classes[number] for number in fair.classes)
    few = sorted(label for label in known if counts[label] < _LEAST_OF_CLASS)
    if len(fair.indices) < _LEAST_PICTURES or few:
        of = f", of {', '.join(few)} fewer than {_LEAST_OF_CLASS}" if few else ""
        return Contest(
            won=False,
            sentence=f"{who} stays: {len(fair.indices)} held-out pictures are new to it{of}, too few to compare",
        )
    new = score_folder(folder, data, fair, min_score).balanced_accuracy
    old = score_folder(theirs, data, fair, min_score).balanced_accuracy
    more = sorted(knows - known)
    won = new > old or (new == old and bool(more))
    verb = "is beaten" if won else "stays"
    sentence = (
        f"{who} {verb}: balanced accuracy {new:.3f} against its {old:.3f} on {len(fair.indices)} held-out pictures"
        + (f"; new: {', '.join(more)}" if more else "")
    )
    return Contest(won=won, sentence=sentence, new=new, old=old)


def _fair_pictures(tracker: MlflowTracker, champion: Version, data: Data, known: set[str]) -> Chosen:
    """Return held-out pictures of the classes that both know, of which the champion has learnt from no version."""
    with tempfile.TemporaryDirectory() as scratch:
        lines = load_lines(tracker.fetch(champion.run_id, "data.jsonl", Path(scratch)).read_bytes(), ManifestLine)
    learnt = [line.looks for line in lines if line.side is not Side.TEST]
    alike = {one for one, _ in near_pairs([example.looks for example in data.examples], learnt)}
    contents = frozenset(line.sha256 for line in lines if line.side is not Side.TEST)
    unfair = {example.sha256 for number, example in enumerate(data.examples) if number in alike}
    strange = {example.sha256 for example in data.examples if example.label not in known}
    return data.side(Side.TEST, without=contents | unfair | strange)
