"""Page Review: captions beside their pictures, and what a person decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from caption_desk.components import live_text
from caption_desk.desk import (
    Desk,
    choose_language,
    has_sign_in,
    load_desk,
    plain,
    plainly,
    remark,
    small_picture,
    thumbnail,
    who,
)
from image_analyzer.errors import ChangedMeanwhileError, ImageAnalyzerError
from image_analyzer.guardrails import count_words
from image_analyzer.languages import display_name
from image_analyzer.ports import Queue, Search
from image_analyzer.reviews import Choice, Review, Sight, check_text, clean_text, may_be_overruled
from image_analyzer.steps.review import review

_QUEUES = {
    Queue.WAITING: "Needs review",
    Queue.FLAGGED: "Published, but looks odd",
    Queue.PUBLISHED: "Published, by chance",
    Queue.REJECTED: "Rejected, wants a text",
}
_AT_ONCE = 25
_ROWS, _SHOWN, _CONFLICT, _STORED = "review_rows", "review_queue", "review_conflict", "review_stored"
_SKIPPED = "review_skipped"


def show() -> None:
    """Show the page."""
    desk = load_desk()
    desk.reviews  # noqa: B018 - where there is no table the page ends here with a sentence
    st.title("Review captions")
    left, middle, right = st.columns([3, 2, 2], vertical_alignment="bottom")
    queue = left.radio("Queue", list(_QUEUES), format_func=_QUEUES.__getitem__, horizontal=True)
    with middle:
        language = choose_language()
    if not has_sign_in():
        right.text_input(
            "Your name", key="name", help="Decisions carry it. Nobody checks it: there is no sign-in here."
        )
    if st.session_state.get(_SHOWN) != (queue, language):
        st.session_state.update({_SHOWN: (queue, language), _SKIPPED: set(), _ROWS: []})
    if not st.session_state[_ROWS]:
        st.session_state[_ROWS] = _next_rows(desk, queue, language)
    rows: list[dict[str, Any]] = st.session_state[_ROWS]
    if conflict := st.session_state.pop(_CONFLICT, ""):
        st.warning(f"Not stored: {plain(conflict)}. This is how the row is now.", icon=":material/sync_problem:")
    if stored := st.session_state.pop(_STORED, ""):
        st.success(stored, icon=":material/check:")
    if not rows:
        _show_end()
        return
    remark(f"{len(rows)} to look at{' or more' if len(rows) == _AT_ONCE else ''}")
    picture, words = st.columns(2)
    with picture:
        _show_picture(rows[0])
    with words:
        _show_reasons(rows[0])
        _decide(rows[0])


def _next_rows(desk: Desk, queue: Queue, language: str) -> list[dict[str, Any]]:
    """Return the next rows of a queue that were not skipped."""
    skipped = st.session_state[_SKIPPED]
    found = desk.reviews.select_queue(queue, language, _AT_ONCE + len(skipped))
    return [row for row in found if _key(row) not in skipped][:_AT_ONCE]


def _key(row: Mapping[str, Any]) -> str:
    """Return what tells a row, as it was seen, from all others."""
    return f"{row['IMAGE_URI']}|{row['LANGUAGE']}|{row['UPDATED_AT']}"


def _show_end() -> None:
    skipped = st.session_state[_SKIPPED]
    if not skipped:
        st.success("Nothing waits here.")
        return
    st.info(f"Nothing else waits here: you skipped {len(skipped)}.")
    if st.button("Show what I skipped"):
        skipped.clear()
        st.rerun()


@st.fragment
def _decide(row: dict[str, Any]) -> None:
    """Take a decision on a row; typing runs this part of the page only."""
    sight, place = Sight.of_row(row), _key(row)
    label = f"Caption in {display_name(sight.language)}"
    text = live_text(label, sight.candidate or "", sight.language, key=f"text|{place}")
    overrule, allowed = _show_check(text, sight.language, place)
    note = st.text_input("Reason (to reject, for decorative, or why a rule does not apply)", key=f"note|{place}")
    same = clean_text(text) == clean_text(sight.candidate or "")
    buttons = st.container(horizontal=True)

    def press(label: str, key: str, *, icon: str | None = None, disabled: bool = False) -> bool:
        # Keys of this row: who presses twice must not decide on the next row, unseen.
        return buttons.button(label, f"{key}|{place}", icon=icon, shortcut=f"Alt+{key}", disabled=disabled)

    pressed = {
        Choice.APPROVED if same else Choice.EDITED: press(
            "Accept" if same else "Save edit", "A", icon=":material/check:", disabled=not allowed
        ),
        Choice.REJECTED: press("Reject", "X"),
        Choice.DECORATIVE: press("Decorative", "N"),
    }
    if press("Skip", "S"):
        st.session_state[_SKIPPED].add(_key(row))
        _go_on()
    for choice in (choice for choice, is_pressed in pressed.items() if is_pressed):
        decision = Review(
            sight=sight, choice=choice, reviewed_by=who(), text=text, note=note or None, overrule=overrule
        )
        _store(decision)


def _show_picture(row: Mapping[str, Any]) -> None:
    jpeg = thumbnail(row["THUMBNAIL_URI"])
    if jpeg:
        alt = row["GPT_SUMMARY"] or f"Picture {row['FILE_NAME']}, which has no published caption"
        st.image(jpeg, alt=alt, width="stretch")
    else:
        st.info("This picture was not kept: only its caption can be judged.")
    remark(f"{row['FILE_NAME']} · {row['IMAGE_URI']}")
    for flag in json.loads(row["FLAGS"] or "[]"):
        st.info(plain(f"{flag['flag']}: like {flag['image_uri']}"))
        _show_sibling(flag["image_uri"])


def _show_reasons(row: Mapping[str, Any]) -> None:
    """Say why this row is here."""
    if row["REVIEW_STATUS"] == "picture_changed":
        st.warning(f"The picture was replaced. {plain(row['REVIEWED_BY'] or '')} decided on another one.")
    elif row["ERROR_MESSAGE"]:
        st.warning(plain(f"{row['ERROR_CODE']}: {row['ERROR_MESSAGE']}"))
    if row["DECORATIVE_REASON"]:
        st.info(f"Decorative: {plain(row['DECORATIVE_REASON'])}")


def _show_sibling(image_uri: str) -> None:
    found = load_desk().reviews.search(Search(image_uri=image_uri), 1)
    source = small_picture(found[0]["THUMBNAIL_URI"]) if found and found[0]["THUMBNAIL_URI"] else ""
    if source:
        st.image(source, alt=found[0]["GPT_SUMMARY"] or "The other picture", width=220)


def _show_check(text: str, language: str, place: str) -> tuple[bool, bool]:
    """Show what the contract says of a text; return whether it is overruled, and whether it may be published."""
    if not clean_text(text):
        st.info("Write a caption, reject it, or mark the picture as decorative.")
        return False, False
    violations = check_text(text, language)
    if not violations:
        st.success(f"{count_words(clean_text(text), language)} words in one sentence: the contract is kept.")
        return False, True
    found = "\n".join(f"- {plain(violation.code)}: {plain(violation.message)}" for violation in violations)
    st.error(f"{count_words(clean_text(text), language)} words. The contract is broken:\n\n{found}")
    overrule = may_be_overruled(violations) and st.checkbox(
        "These rules do not apply here; I give the reason", key=f"overrule|{place}"
    )
    return overrule, overrule


def _store(decision: Review) -> None:
    """Store a decision and go on to the next row; where it cannot be stored, say why and stay."""
    reviews = load_desk().reviews
    try:
        rows = review(reviews, decision)
    except ChangedMeanwhileError as error:
        seen = decision.sight
        with plainly():
            fresh = reviews.search(Search(image_uri=seen.image_uri, language=seen.language), 1)
            st.session_state[_CONFLICT] = str(error)
            st.session_state[_ROWS] = [*fresh, *st.session_state[_ROWS][1:]]
            st.rerun()
    except ImageAnalyzerError as error:
        st.error(f"Not stored: {plain(str(error))}.")
    else:
        # Not a toast: Streamlit's is a dialogue without a name.
        st.session_state[_STORED] = f"Stored: {decision.choice}, {rows} row{'s' if rows > 1 else ''}"
        _go_on()


def _go_on() -> None:
    st.session_state[_ROWS] = st.session_state[_ROWS][1:]
    st.rerun()
