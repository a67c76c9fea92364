"""The wording policy: one versioned file of words per language, read once and compiled.

A list of the file is words between spaces, in the notation of `notation`. Case is ignored, except in lists named `…_exact`.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from functools import cache, cached_property
from importlib.resources import files

import regex
from pydantic import BaseModel, ConfigDict

from image_analyzer.guardrails.notation import EDGELESS, NEVER, compile_any, compile_phrases, phrases
from image_analyzer.languages import base_code, language, supported_languages

# Raised with every change of the rules in code that may change a verdict.
RULES_VERSION = 1

# A man's shoe is a shoe; a man-made pond is a pond.
_NOT_POSSESSIVE = r"(?!['’]s|['’]\s|-\p{L})"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SentenceWords(_Section):
    """What decides whether a full stop ends a sentence.

    Attributes:
        abbreviations: After them it never does.
        may_end: After them it does before one of `starters` only.
        starters: Words that often begin a sentence and are not names.
        brands: Names that end with `!` or `?`.
        ordinals: A number with a full stop is an ordinal.
        capital_nouns: Any noun has a capital, so a capital begins no sentence by itself.
        extra_terminators: Further marks that end a sentence before a space.
    """

    abbreviations: str = ""
    may_end: str = ""
    starters: str = ""
    brands: str = ""
    ordinals: bool = False
    capital_nouns: bool = False
    extra_terminators: str = ""


class StyleWords(_Section):
    """Wording that alt text does without.

    Attributes:
        prefixes: Regular expressions of "image of", matched at the start; what follows is the caption.
        suffixes: The same at the end, for languages that put it there.
        prefix_repair: Dropping the prefix leaves a sound sentence.
        functions: Articles, conjunctions and prepositions: after one of them a sentence is not over.
        may_close: Those of them that can end one.
        placed: Verbs that say where a thing is: "a photo of a dog hangs on a wall" speaks of a photo in the picture.
        verb_final: Particles and auxiliary verbs end whole clauses, so a missing full stop is all that is missing.
    """

    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    prefix_repair: bool = False
    uninformative: str = ""
    first_person: str = ""
    first_person_exact: tuple[str, ...] = ()
    hedges: str = ""
    chatter_start: tuple[str, ...] = ()
    chatter_end: tuple[str, ...] = ()
    functions: str = ""
    may_close: str = ""
    verb_final: bool = False
    placed: str = ""


class PeopleWords(_Section):
    """Words about people.

    Attributes:
        nouns: People; by themselves allowed.
        noun_endings, adjective_endings: What `*` stands for in `nouns` and in the adjectives, where it is not any letters:
            a park is no couple.
        age, private: Words that say too much by themselves.
        age_numbers: Numbers of years, which say too much in the same clause as one of `nouns`: an oak may be 300.
        age_adjectives, private_adjectives: Words that do so beside one of `nouns`; an old bridge is fine.
        order: Where adjectives stand: `before`, `after` or `both`.
        titles: What stands before a name.
        naming: What says that a name follows, such as "named".
        given: Names of people, in scripts without capitals, that are no other word.
        persons: Regular expressions of whole names there, such as a family's with a given one.
        named_things: What makes such a name a thing's, before or after it: a statue, a street.
    """

    nouns: str = ""
    noun_endings: str = ""
    adjective_endings: str = ""
    age: str = ""
    age_numbers: str = ""
    age_adjectives: str = ""
    private: str = ""
    private_adjectives: str = ""
    private_exact: str = ""
    order: str = "before"
    titles: str = ""
    naming: str = ""
    given: str = ""
    persons: tuple[str, ...] = ()
    named_things: str = ""


class AnswerWords(_Section):
    """What a model says instead of a caption."""

    refusals: str = ""
    refusal_starts: str = ""
    injections: str = ""
    injection_patterns: tuple[str, ...] = ()
    labels: str = ""


class PolicyFile(_Section):
    """One file of `data/policy/`."""

    version: int
    sentences: SentenceWords = SentenceWords()
    style: StyleWords = StyleWords()
    people: PeopleWords = PeopleWords()
    answers: AnswerWords = AnswerWords()


class Policy:
    """The policy of one language, compiled."""

    def __init__(self, code: str, own: PolicyFile, shared: PolicyFile) -> None:
        self.code, self._own, self._shared = code, own, shared
        known = language(code) if code in supported_languages() else None
        self.terminators = known.terminators if known else ".!?…"
        self.extra_terminators = own.sentences.extra_terminators
        self.ordinals, self.capital_nouns = own.sentences.ordinals, own.sentences.capital_nouns
        self.prefix_repair = own.style.prefix_repair
        self.adjectives_first = own.people.order == "before"
        self._abbreviations = _lower_set(own.sentences.abbreviations, shared.sentences.abbreviations)
        self._may_end = _lower_set(own.sentences.may_end, shared.sentences.may_end)
        self._starters = _lower_set(own.sentences.starters)
        self._brands = tuple(shared.sentences.brands.split())
        self.functions = _lower_set(own.style.functions)
        self.verb_final = own.style.verb_final
        self.may_close = _lower_set(own.style.may_close)
        self.uninformative = _lower_set(own.style.uninformative, shared.style.uninformative)

    @property
    def version(self) -> str:
        """Return what a row records: language, version of its file, and a digest of every word and of the rules' version."""
        content = json.dumps(
            [RULES_VERSION, self._own.model_dump(), self._shared.model_dump()], sort_keys=True, ensure_ascii=False
        )
        return f"{self.code}-{self._own.version}.{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def is_abbreviation(self, word: str) -> bool:
        """Tell whether a word, without its last full stop, never ends a sentence."""
        return word.lower() in self._abbreviations

    def may_end(self, word: str) -> bool:
        """Tell whether an abbreviation, without its last full stop, can end a sentence."""
        return word.lower() in self._may_end

    def is_starter(self, word: str) -> bool:
        """Tell whether a word often begins a sentence; `A.` of initials does not."""
        bare = regex.sub(r"[,:;]+\Z", "", word)
        return bool(bare) and bare[:1].isupper() and regex.split("['’]", bare.lower())[0] in self._starters

    def is_brand(self, word: str) -> bool:
        """Tell whether a word with its mark is a brand name such as Yahoo!."""
        return word.endswith(self._brands)

    @cached_property
    def prefixes(self) -> regex.Pattern[str]:
        """Return what matches "image of" at the start."""
        return compile_any(self._own.style.prefixes, r"\A\s*", r"\s*")

    @cached_property
    def suffixes(self) -> regex.Pattern[str]:
        """Return what matches "…の写真" at the end; the group `end` is the terminator."""
        return compile_any(self._own.style.suffixes, after=r"(?P<end>[.。!！…]*)\s*\Z")

    @cached_property
    def chatter_start(self) -> regex.Pattern[str]:
        """Return what matches a preamble."""
        return compile_any(self._shared.style.chatter_start + self._own.style.chatter_start, r"\A\s*", r"\s*")

    @cached_property
    def chatter_end(self) -> regex.Pattern[str]:
        """Return what matches remarks to the reader after the caption."""
        return compile_any(
            self._shared.style.chatter_end + self._own.style.chatter_end, r"(?:(?<=[.!?。।])|(?<=\n))\s*", r"\s*\Z"
        )

    @cached_property
    def first_person(self) -> tuple[regex.Pattern[str], ...]:
        """Return what matches the writer speaking of itself."""
        exact = [regex.compile(pattern) for pattern in self._own.style.first_person_exact]
        return (compile_phrases(self._own.style.first_person), *exact)

    @cached_property
    def placed(self) -> regex.Pattern[str]:
        """Return what matches a verb that says where a thing is."""
        return compile_phrases(self._own.style.placed)

    @cached_property
    def hedges(self) -> regex.Pattern[str]:
        """Return what matches guesswork."""
        return compile_phrases(self._own.style.hedges)

    @cached_property
    def ages(self) -> tuple[regex.Pattern[str], ...]:
        """Return what matches an age."""
        people = self._own.people
        beside = self._beside_people(
            people.age_adjectives, between=r"(?:\s+[\p{L}\p{M}-]+)?", not_before=_NOT_POSSESSIVE
        )
        return compile_phrases(people.age), beside, self._near_people(people.age_numbers)

    @cached_property
    def private_attributes(self) -> tuple[regex.Pattern[str], ...]:
        """Return what matches origin, religion, health, orientation or status of people."""
        people = self._own.people
        adjectives = f"{people.age_adjectives} {people.private_adjectives}"
        between = rf"(?:\s+(?:{phrases(adjectives, people.adjective_endings)}))?" if adjectives.split() else ""
        return (
            compile_phrases(people.private),
            compile_phrases(people.private_exact, exact=True),
            self._beside_people(people.private_adjectives, between, not_before=_NOT_POSSESSIVE),
        )

    def _beside_people(self, adjectives: str, between: str = "", not_before: str = "") -> regex.Pattern[str]:
        if not adjectives.split() or not self._own.people.nouns.split():
            return NEVER
        people = self._own.people
        adjective = f"(?:{phrases(adjectives, people.adjective_endings)})"
        noun = f"(?:{phrases(people.nouns, people.noun_endings)})"
        gap = r"\s*" if EDGELESS.match(people.nouns.strip()) else r"\s+"
        ways = []
        if people.order in ("before", "both"):
            ways.append(f"{adjective}{between}{gap}{noun}{not_before}")
        if people.order in ("after", "both"):
            ways.append(f"{noun}{gap}{adjective}")
        return regex.compile("|".join(ways), regex.IGNORECASE)

    def _near_people(self, words: str) -> regex.Pattern[str]:
        if not words.split() or not self._own.people.nouns.split():
            return NEVER
        span = f"(?:{phrases(words)})"
        noun = f"(?:{phrases(self._own.people.nouns, self._own.people.noun_endings)})"
        gap = r"[^.,;!?。，、।]"
        return regex.compile(f"{noun}{gap}{{0,30}}?{span}|{span}{gap}{{0,25}}?{noun}", regex.IGNORECASE)

    @cached_property
    def titles(self) -> str:
        """Return a regular expression of what stands before a name, such as President."""
        return phrases(f"{self._own.people.titles} {self._shared.people.titles}")

    @cached_property
    def naming(self) -> regex.Pattern[str]:
        """Return what matches the words that announce a name, and the name."""
        people = self._own.people
        if not people.naming.split():
            return NEVER
        noun = phrases(people.nouns, people.noun_endings)
        return regex.compile(rf"(?i:{noun})(?:,?\s+\p{{L}}+)?\s+(?i:{phrases(people.naming)})\s+\p{{Lu}}\p{{Ll}}+")

    @cached_property
    def persons(self) -> regex.Pattern[str]:
        """Return what matches a person's name in a script without capitals."""
        people = self._own.people
        return compile_any((compile_phrases(people.given).pattern, *people.persons)) if people.given else NEVER

    @cached_property
    def named_things(self) -> regex.Pattern[str]:
        """Return what matches a thing that may bear a person's name, in such a script."""
        return compile_phrases(self._own.people.named_things)

    @cached_property
    def refusals(self) -> regex.Pattern[str]:
        """Return what matches a refusal or an apology."""
        starts = self._own.answers.refusal_starts
        anywhere = compile_phrases(f"{self._own.answers.refusals} {self._shared.answers.refusals}").pattern
        at_start = rf"|\A\W*(?:{phrases(starts)})" if starts.split() else ""
        return regex.compile(anywhere + at_start, regex.IGNORECASE)

    @cached_property
    def injections(self) -> regex.Pattern[str]:
        """Return what matches instructions to a model."""
        own, shared = self._own.answers, self._shared.answers
        words = compile_phrases(f"{own.injections} {shared.injections}").pattern
        return compile_any((words, *own.injection_patterns, *shared.injection_patterns))

    @cached_property
    def labels(self) -> regex.Pattern[str]:
        """Return what matches talk of a classifier."""
        return compile_phrases(f"{self._own.answers.labels} {self._shared.answers.labels}")


def _lower_set(*lists: str) -> frozenset[str]:
    return frozenset(word.replace("_", " ").lower() for words in lists for word in words.split())


@cache
def _read_file(name: str) -> PolicyFile:
    path = files("image_analyzer") / "data" / "policy" / f"{name}.toml"
    return PolicyFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


@cache
def policy(code: str) -> Policy:
    """Return the policy of a language; of one that is not supported, what holds for every language."""
    base = base_code(code)
    own = _read_file(base) if base in supported_languages() else PolicyFile(version=0)
    return Policy(base, own, _read_file("shared"))
