"""Personal data in a caption, quoted or not: what a picture shows of a card, a letter or a plate is not passed on."""

from __future__ import annotations

import unicodedata

import regex

_EMAIL = regex.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = regex.compile(
    r"(?<![\w.,/-])(?:\+\d[\d\s().-]{6,}\d|\(\d{2,5}\)\s?\d{2,4}[\s.-]?\d{2,6}|\d{3}[-.\s]\d{3}[-.\s]\d{4}"
    r"|0\d(?:[ .]\d\d){4}|0\d{1,4}[\s/-]\d{3,}[\s-]?\d{2,}|(?<!number )\d{3}-\d{4})(?![\w-]|[.,]\d)"
)
_SAID_PHONE = regex.compile(
    r"\b(?:phone|tel(?:\.|ephone)?|call|mobile|cell|fax|whatsapp|teléfono|téléphone|telefon\w*|телефон\w*|電話|电话|전화|هاتف)"
    r"\D{0,12}(\d[\d\s().-]{5,}\d)",
    regex.IGNORECASE,
)
_DIGIT_RUN = regex.compile(r"(?<![\w.,])\d(?:[ -]?\d){12,18}(?![\w]|[.,]\d)")
_IBAN = regex.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")
_NATIONAL_ID = regex.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_NUMBERED = regex.compile(
    r"(?i:passport|driver'?s? licen[cs]e|driving licen[cs]e|identity card|id card|social security|ssn|account|insurance"
    r"|patient|employee|national id|pasaporte|passeport|reisepass|паспорт\w*)\b[^.]{0,24}?\b"
    r"(?=[A-Z0-9 -]*\d{3})[A-Z0-9][A-Z0-9 -]{4,}"
)
_PLATE = regex.compile(
    r"(?i:licen[cs]e plate|number plate|registration(?: plate| number)|kennzeichen|nummernschild"
    r"|plaque d['’]immatriculation|immatriculation|matrícula|placa (?:de )?(?:matrícula|do carro)|kenteken|nummerplade|nummerplåt"
    r"|registreringsskylt|rekisterikilpi|tablica rejestracyjna|plakası?|(?:гос)?номер(?:ной|ным)? знак\w*|госномер\w*)"
    r"[^.!?]{0,24}?[\s:“\"«„](?=[\p{Lu}\d -]*\p{Lu})(?=[\p{Lu}\d -]*\d)"
    r"[\p{Lu}\d]{1,4}(?:[ ·-]?[\p{Lu}\d]{1,4}){1,3}(?![\p{Ll}])"
)
_PLATE_FORM = regex.compile(r"(?<![\w-])[A-Z]{2}-\d{3}-[A-Z]{2}(?![\w-])")
_STREET = r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Court|Boulevard|Blvd)"
_POSTCODE = r"(?:\d{5}|[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2})"
_ADDRESS = regex.compile(
    r"(?:addressed to|home address|lives at|address is|residents? of|delivered to)[^.!?]*?\d{1,5}\s+\p{Lu}\w+"
    rf"|\d{{1,5}}[A-Za-z]?\s+(?:\p{{Lu}}\w+\s+){{1,3}}{_STREET}\b[^.!?]{{0,30}}?\b{_POSTCODE}\b"
)
_BIRTH = regex.compile(
    r"(?:born(?: on)?|date of birth|d\.?o\.?b\.?|birth ?date|birthday)\W{0,4}(?:is |reads )?"
    r"(?:\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{1,2} \p{L}+ \d{4}|\p{L}+ \d{1,2},? \d{4}|\d{4}-\d{2}-\d{2})",
    regex.IGNORECASE,
)
_CARD_LENGTHS = frozenset({13, 14, 15, 16, 19})


def find_personal_data(text: str) -> tuple[int, int] | None:
    """Find an e-mail address, phone, card, account, identity or plate number, a postal address or a birth date."""
    digits = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    for pattern in (_EMAIL, _PHONE, _SAID_PHONE, _NATIONAL_ID, _NUMBERED, _PLATE, _PLATE_FORM, _ADDRESS, _BIRTH):
        if match := pattern.search(digits):
            return match.span()
    for match in _DIGIT_RUN.finditer(digits):
        if _is_card(match.group()):
            return match.span()
    for match in _IBAN.finditer(digits):
        if _is_iban(match.group()):
            return match.span()
    return None


def _is_card(text: str) -> bool:
    """Check length, first digit and Luhn's sum."""
    digits = [int(c) for c in text if c.isdigit()]
    if len(digits) not in _CARD_LENGTHS or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = [2 * d - 9 * (d > 4) for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Check the remainder of ISO 13616: the rearranged number modulo 97 is 1."""
    bare = text.replace(" ", "")
    number = "".join(str(int(c, 36)) for c in bare[4:] + bare[:4])
    return int(number) % 97 == 1
