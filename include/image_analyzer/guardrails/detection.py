"""Tells whether a text is written in the asked language: first by script, then by a detector restricted to the product's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import regex

from image_analyzer.guardrails.policy import policy
from image_analyzer.guardrails.words import count_words
from image_analyzer.languages import language, supported_languages

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Below this probability of the asked language a caption counts as written in another one: measured on 332 hard cases on
# 2026-11-22, 0.2 caught 11 of 11 drifts with 2 false alarms.
_MIN_PROBABILITY = 0.2
# In few words a rare name outweighs the rest.
_MIN_PROBABILITY_OF_FEW = 0.02
_FEW_WORDS = 6
# One word with a letter that the language does not have may be borrowed, or a name.
_MIN_PROBABILITY_WITH_FOREIGN = 0.5
_FEWEST_WORDS_TO_JUDGE = 4
_FEWEST_FUNCTION_WORDS = 3
_SCRIPT_CLASS = {
    "Japanese": r"\p{Hiragana}\p{Katakana}\p{Han}ー",
    "Han": r"\p{Han}",
    "Hangul": r"\p{Hangul}\p{Han}",
}
_LETTERS_WITH_KANA = 8
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_NOT_WORDING = regex.compile(r"(?:https?://|www\.)\S+|\S+@\S+|\p{N}+|\S*_\S*")


def is_language(wording: str, code: str) -> bool:
    """Tell whether a text, its quotations masked, is in the language of a BCP 47 code. When in doubt it is.

    Languages that no detector tells apart in one sentence, such as Danish and Norwegian, count as one.
    """
    wanted = language(code)
    bare = _NOT_WORDING.sub(" ", wording)
    letters = len(regex.findall(r"\p{L}", bare))
    if not letters:
        return True
    script = _SCRIPT_CLASS.get(wanted.script, rf"\p{{{wanted.script}}}")
    in_script = len(regex.findall(f"[{script}]", bare))
    if code.lower().startswith("sr"):  # written in both
        in_script += len(regex.findall(r"\p{Latin}", bare))
    if in_script < letters / 2 or (wanted.script == "Han" and len(_KANA.findall(bare)) > letters / 4):
        return False
    if wanted.script == "Japanese" and letters >= _LETTERS_WITH_KANA and not _KANA.search(bare):
        return False
    words = count_words(bare, code)
    if len(_sharing_script(wanted.script)) == 1 or words < _FEWEST_WORDS_TO_JUDGE:
        return True
    foreign = _count_foreign(bare, wanted.foreign)
    enough = _MIN_PROBABILITY if words > _FEW_WORDS else _MIN_PROBABILITY_OF_FEW
    enough = _MIN_PROBABILITY_WITH_FOREIGN if foreign else enough
    ranked = _rank(bare)
    if sum(probability for label, probability in ranked if label in wanted.detector) >= enough:
        return True
    return _speaks_against(bare, code, ranked[0][0])


def _count_foreign(text: str, letters: str) -> int:
    """Return how many words, names aside, have a letter that the language does not have."""
    if not letters:
        return 0
    words = {word for word in text.split() if not word[:1].isupper()}
    return sum(1 for word in words if any(letter in word for letter in letters))


def _rank(text: str) -> list[tuple[str, float]]:
    # The detector knows names in capitals badly: a caption in capitals is judged in lower case.
    encodable = text.encode(errors="replace").decode()
    ranked = _identifier().rank(encodable.lower() if encodable.isupper() else encodable)
    return [(str(label), float(probability)) for label, probability in ranked]


def _speaks_against(text: str, code: str, label: str) -> bool:
    """Give articles and prepositions a say: names and dishes of another country make no caption foreign."""
    words = {word.strip(".,;:!?").lower() for word in text.split()}
    others = [other for other in supported_languages() if label in language(other).detector]
    own_hits = len(words & policy(code).functions)
    best = max((len(words & policy(other).functions) for other in others), default=0)
    return own_hits >= _FEWEST_FUNCTION_WORDS and own_hits > best + 1


@cache
def _sharing_script(script: str) -> tuple[str, ...]:
    return tuple(code for code in supported_languages() if language(code).script == script)


@cache
def _identifier() -> LanguageIdentifier:
    """Load the detector once per process, restricted to the languages of the product."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(sorted({label for code in supported_languages() for label in language(code).detector}))
    return identifier
