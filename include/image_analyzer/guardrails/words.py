"""Counts words: between spaces where a script writes them, by dictionary where it does not."""

from __future__ import annotations

import unicodedata

import regex
from icu4py.breakers import WordBreaker

# Scripts that write no spaces between words. Source of the dictionaries: ICU.
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]")
_WORD_CHARACTER = regex.compile(r"[\p{L}\p{N}]")
_SEPARATOR = regex.compile(r"[\s—―]+")


def count_words(text: str, language: str) -> int:
    """Return the number of words: tokens between spaces and em dashes that have a letter or a digit.

    `black-and-white` and `l'arbre` are one word each, `&` and `€` are none; Vietnamese counts syllables and Korean
    counts eojeol. Inside tokens in Chinese, Japanese, Thai, Lao, Khmer or Myanmar script a dictionary finds the words.
    """
    return len(split_words(text, language))


def split_words(text: str, language: str) -> list[str]:
    """Return the words that `count_words` counts, in order, with the punctuation that clings to them."""
    words: list[str] = []
    for token in _SEPARATOR.split(unicodedata.normalize("NFC", text)):
        if _UNSPACED.search(token):
            encodable = token.encode(errors="replace").decode()  # half a surrogate pair is no text to ICU
            words += [str(piece) for piece in WordBreaker(encodable, language) if _WORD_CHARACTER.search(piece)]
        elif _WORD_CHARACTER.search(token):
            words.append(token)
    return words
