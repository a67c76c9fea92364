"""Which of the models of one name is the champion: who is better on pictures that neither has learnt from."""

from __future__ import annotations

import tempfile
from pathlib import Path

from image_analyzer.clients.mlflow_tracker import HINT_MODEL, MlflowTracker, Version
from image_analyzer.jsonl import load_lines
from image_analyzer.records import Record
from image_analyzer.training.dataset import ManifestLine, Side
from image_analyzer.training.judging import Data, read_labels, score_folder

# With fewer, one picture decides.
_LEAST_PICTURES = 20


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
    lacking = set(read_labels(theirs)) - set(read_labels(folder))
    if lacking:
        return Contest(
            won=False,
            sentence=f"{who} stays: it also knows {', '.join(sorted(lacking))}; train under another --name",
        )
    learnt = _learnt_from(tracker, champion)
    fair = data.side(Side.TEST, without=learnt)
    if len(fair.indices) < _LEAST_PICTURES:
        return Contest(
            won=False,
            sentence=f"{who} stays: it has learnt from all but {len(fair.indices)} of the held-out pictures, too few to compare",
        )
    new = score_folder(folder, data, fair, min_score).balanced_accuracy
    old = score_folder(theirs, data, fair, min_score).balanced_accuracy
    won = new > old
    verb = "is beaten" if won else "stays"
    sentence = (
        f"{who} {verb}: balanced accuracy {new:.3f} against its {old:.3f} on {len(fair.indices)} held-out pictures"
    )
    return Contest(won=won, sentence=sentence, new=new, old=old)


def _learnt_from(tracker: MlflowTracker, version: Version) -> frozenset[str]:
    with tempfile.TemporaryDirectory() as scratch:
        lines = load_lines(tracker.fetch(version.run_id, "data.jsonl", Path(scratch)).read_bytes(), ManifestLine)
    return frozenset(line.sha256 for line in lines if line.side is not Side.TEST)
