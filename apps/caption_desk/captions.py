"""Page Caption: pictures in, sentences out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from caption_desk.components import copy_text
from caption_desk.desk import Desk, load_desk, plain, remark
from image_analyzer.errors import BudgetExceededError, ImageAnalyzerError, ItemError, RetryableError
from image_analyzer.languages import display_name, supported_languages
from image_analyzer.metadata import FORMATS
from image_analyzer.records import Origin, Status
from image_analyzer.settings import CaptionBackend
from image_analyzer.steps.upload import Upload, Uploaded, caption_upload, store_rows
from image_analyzer.table import ResultRow

_RESULTS = "captioned"
_EXTENSIONS = sorted({extension.removeprefix(".") for _, extensions in FORMATS.values() for extension in extensions})
_ORIGINS = {
    Origin.MODEL: "Written by {model}",
    Origin.REUSED: "Known already: the same picture was captioned before",
    Origin.PERSON: "Decided by a person for the same picture",
    Origin.OFFLINE: "Written offline from colours and light: no vision model was asked, since no OPENAI_API_KEY is set",
}


class Captioned(NamedTuple):
    """What came of one file.

    Attributes:
        problem: A sentence, where there is no caption.
    """

    name: str
    uploaded: Uploaded | None = None
    problem: str = ""


def show() -> None:
    """Show the page."""
    desk = load_desk()
    st.title("Caption pictures")
    with st.form("pictures", border=False):
        files = st.file_uploader(
            "Pictures",
            type=_EXTENSIONS,
            accept_multiple_files=True,
            max_upload_size=math.ceil(desk.settings.max_image_bytes / 1_000_000),
        )
        languages = st.multiselect(
            "Languages",
            sorted({*supported_languages(), *desk.settings.caption_languages}, key=display_name),
            default=desk.settings.caption_languages,
            format_func=display_name,
        )
        archive = st.checkbox(
            "Save upload to S3 and link in Snowflake",
            disabled=desk.faces.tools.store is None,
            help="Else nothing of the picture is kept, and its row is keyed by the hash of its bytes.",
        )
        wanted = st.form_submit_button("Generate description", type="primary")
    if desk.settings.backend is CaptionBackend.OFFLINE:
        st.info("No vision model is set up (OPENAI_API_KEY): captions are written offline and say little.")
    if desk.faces.tools.warehouse is None:
        st.info("No warehouse is set up (SNOWFLAKE_ACCOUNT): captions are shown and not stored.")
    if wanted:
        if files and languages:
            uploads = [Upload(file.getvalue(), file.name, tuple(languages), archive=archive) for file in files]
            st.session_state[_RESULTS] = _caption_all(desk, uploads)
        else:
            st.warning("Choose a picture first." if languages else "Choose a language first.")
    for place, captioned in enumerate(st.session_state.get(_RESULTS, ())):
        _show_one(desk, place, captioned)


def _caption_all(desk: Desk, uploads: Sequence[Upload]) -> list[Captioned]:
    done: list[Captioned] = []
    bar = st.progress(0.0, "Looking")
    for count, upload in enumerate(uploads):
        bar.progress(count / len(uploads), f"{upload.name}, {count + 1} of {len(uploads)}")
        done.append(_caption_one(desk, upload))
    bar.empty()
    return done


def _caption_one(desk: Desk, upload: Upload) -> Captioned:
    try:
        return Captioned(upload.name, caption_upload(desk.faces.tools, upload))
    except ItemError as error:
        return Captioned(upload.name, problem=f"This file cannot be captioned: {error}.")
    except BudgetExceededError as error:
        return Captioned(upload.name, problem=f"Today's budget is used up: {error}.")
    except RetryableError as error:
        return Captioned(upload.name, problem=f"It does not work just now, try again in a minute: {error}.")
    except ImageAnalyzerError as error:
        return Captioned(upload.name, problem=f"It is set up wrongly, tell whoever runs it: {error}")


def _show_one(desk: Desk, place: int, captioned: Captioned) -> None:
    with st.container(border=True):
        st.header(plain(captioned.name))
        if captioned.uploaded is None:
            st.error(plain(captioned.problem), icon=":material/error:")
            return
        uploaded = captioned.uploaded
        left, right = st.columns([1, 2])
        with left:
            alt = uploaded.rows[0].gpt_summary or f"Picture {captioned.name}, without a caption"
            st.image(uploaded.thumbnail, alt=alt, width="stretch")
            first = uploaded.rows[0]
            remark(f"{first.mime_type}, {first.width_px} x {first.height_px}")
        with right:
            for row in uploaded.rows:
                _show_row(place, row, uploaded)
            _show_storage(desk, place, captioned)


def _show_row(place: int, row: ResultRow, uploaded: Uploaded) -> None:
    st.markdown(f"**{display_name(row.language)}**")
    if row.status is Status.OK and row.gpt_summary:
        copy_text(row.gpt_summary, row.language, key=f"copy-{place}-{row.language}")
    elif row.status is Status.DECORATIVE:
        st.success(f"Decorative: it needs no caption. {plain(row.decorative_reason or '')}")
    elif row.status is Status.NEEDS_REVIEW:
        st.warning(f"Needs review: {plain(row.error_message or '')}. A person finds it on the page Review.")
    else:
        st.warning(f"No caption yet ({plain(row.status)}): {plain(row.error_message or '')}")
    remark(" · ".join(_facts(row, uploaded)))


def _facts(row: ResultRow, uploaded: Uploaded) -> list[str]:
    facts = [f"{row.words} words"] if row.words else []
    paid = uploaded.paid_usd.get(row.language)
    origin = Origin.PERSON if row.language in uploaded.decided else row.caption_origin
    if origin is Origin.MODEL and paid == 0.0:
        origin = Origin.REUSED
    if origin:
        facts.append(_ORIGINS[origin].format(model=row.caption_model))
    if paid is not None:
        facts.append(f"cost ${paid:.6f}" if paid else "cost nothing")
    return facts


def _show_storage(desk: Desk, place: int, captioned: Captioned) -> None:
    uploaded, warehouse = captioned.uploaded, desk.faces.tools.warehouse
    if uploaded is None or warehouse is None:
        return
    if uploaded.stored:
        remark(f"In IMAGE_RESULTS as {uploaded.rows[0].image_uri}")
        return
    st.warning(f"Not stored yet: {plain(uploaded.problem)}. The caption above is paid for and not lost.")
    if st.button("Store again", key=f"store-{place}"):
        st.session_state[_RESULTS][place] = captioned._replace(uploaded=store_rows(warehouse, uploaded))
        st.rerun()
