"""Page Browse: what the table says, as a gallery, a table, or a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import streamlit as st

from caption_desk.desk import choose_language, load_desk, remark, small_picture
from image_analyzer.contactsheet import Card, render_gallery
from image_analyzer.ports import ReviewDesk, Search
from image_analyzer.records import Status
from image_analyzer.sheets import write_csv

_PAGE, _FILE = 48, 10_000
_COLUMNS = (
    "IMAGE_URI", "LANGUAGE", "FILE_NAME", "GPT_SUMMARY", "STATUS", "ERROR_CODE", "ERROR_MESSAGE", "CAPTION_ORIGIN",
    "CAPTION_MODEL", "WORDS", "REVIEW_STATUS", "REVIEWED_BY", "MIME_TYPE", "WIDTH_PX", "HEIGHT_PX", "SHA256", "COST_USD",
    "UPDATED_AT",
)  # fmt: skip
_CURSORS = "browse_cursors"


def show() -> None:
    """Show the page."""
    desk = load_desk()
    st.title("Browse results")
    search = _ask()
    if st.session_state.get("browse_search") != search:
        st.session_state["browse_search"], st.session_state[_CURSORS] = search, [("", "")]
    cursors: list[tuple[str, str]] = st.session_state[_CURSORS]
    rows = desk.reviews.search(search, _PAGE + 1, cursors[-1])
    page = rows[:_PAGE]
    if not page:
        st.info("No row fits.")
        return
    as_table = st.segmented_control("Show as", ["Gallery", "Table"], default="Gallery", required=True) == "Table"
    if as_table:
        shown = [{name: row[name] for name in _COLUMNS} for row in page]
        st.dataframe(shown, hide_index=True, alt=f"{len(page)} rows of IMAGE_RESULTS with their captions and statuses")
    else:
        cards = [Card.from_row(row, small_picture(row["THUMBNAIL_URI"] or "")) for row in page]
        st.html(render_gallery(cards))
    _show_steps(cursors, page, more=len(rows) > _PAGE)
    if st.button(f"Prepare csv of the rows that fit, {_FILE:,} at most"):
        content, count = _write_csv(desk.reviews, search)
        st.download_button(f"Download {count} rows", content, "image_results.csv", "text/csv", on_click="ignore")


def _ask() -> Search:
    first, second = st.columns(3), st.columns(3)
    words = first[0].text_input("Words in caption or file name")
    status = first[1].selectbox("Status", ["", *Status], format_func=lambda value: value or "Any")
    with first[2]:
        language = choose_language()
    label = second[0].text_input("Label hint", help="What the small network saw; it may be wrong.")
    begin = second[1].date_input("Changed from", None)
    end = second[2].date_input("Changed until", None)
    return Search(
        words=words.strip(),
        status=status,
        language=language,
        label=label.strip(),
        from_day=begin.isoformat() if begin else "",
        to_day=end.isoformat() if end else "",
    )


def _show_steps(cursors: list[tuple[str, str]], page: Sequence[dict[str, Any]], *, more: bool) -> None:
    row = st.container(horizontal=True, vertical_alignment="center")
    if row.button("Previous page", disabled=len(cursors) == 1):
        cursors.pop()
        st.rerun()
    with row:
        remark(f"Page {len(cursors)}, {len(page)} rows")
    if row.button("Next page", disabled=not more):
        cursors.append((page[-1]["IMAGE_URI"], page[-1]["LANGUAGE"]))
        st.rerun()


def _write_csv(reviews: ReviewDesk, search: Search) -> tuple[str, int]:
    rows = reviews.search(search, _FILE)
    output = io.StringIO()
    write_csv(output, _COLUMNS, rows)
    return output.getvalue(), len(rows)
