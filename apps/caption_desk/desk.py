"""What all pages share: the tools, who is there, thumbnails, errors as sentences."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import streamlit as st

from image_analyzer.contactsheet import shrink
from image_analyzer.errors import ConfigurationError, ImageAnalyzerError
from image_analyzer.faces import Faces, make_faces, warm_up
from image_analyzer.languages import display_name, supported_languages
from image_analyzer.ports import ReviewDesk
from image_analyzer.settings import Settings, load_settings
from image_analyzer.thumbnails import read_pack

log = logging.getLogger(__name__)
_PACKS = 4  # of some 20 MB
_SMALL_PICTURES = 2_000
_MARKS = re.compile(r"([!-/:-@\[-`{-~])")


class Desk(NamedTuple):
    """What the pages work with."""

    settings: Settings
    faces: Faces

    @property
    def reviews(self) -> ReviewDesk:
        """The table's desk.

        Raises:
            ConfigurationError: There is no warehouse.
        """
        if self.faces.desk is None:
            raise ConfigurationError("There is no table to look at: SNOWFLAKE_ACCOUNT is not set.")
        return self.faces.desk


@st.cache_resource(show_spinner="Starting")
def load_desk() -> Desk:
    """Build everything once for all sessions."""
    settings = load_settings()
    desk = Desk(settings, make_faces(settings))
    threading.Thread(target=warm_up, args=(settings,), daemon=True).start()  # while the first person looks around
    return desk


def plain(text: str) -> str:
    """Return text for a place that takes Markdown: file names and captions are other people's text, not formatting or links."""
    return _MARKS.sub(r"\\\1", text)


def remark(text: str) -> None:
    """Show a small line of plain text; Streamlit's `caption` is too pale to read for many."""
    st.markdown(f":small[{plain(text)}]")


@contextmanager
def plainly() -> Iterator[None]:
    """Show our errors as a sentence where the page would go on."""
    try:
        yield
    except ImageAnalyzerError as error:
        log.warning("%s: %s", type(error).__name__, error)
        st.error(plain(str(error)), icon=":material/error:")


def may_enter(user: Mapping[str, Any], allowed: tuple[str, ...], *, believe_email: bool = False) -> bool:
    """Tell whether a person whom the identity provider has signed in may use the add-on.

    Args:
        user: Claims of the provider.
        allowed: Addresses, or `@domain`; none: everybody whom the provider signs in.
        believe_email: Take an address of which the provider does not say that it verified it: with some, people choose theirs.
    """
    address = str(user.get("email") or "").lower()
    unsaid = "true" if believe_email else "false"
    if address and str(user.get("email_verified", unsaid)).lower() != "true":  # some providers send a word
        return False
    return not allowed or address in allowed or f"@{address.rpartition('@')[2]}" in allowed


def admit(desk: Desk) -> bool:
    """Ask for a sign-in where one is set up; tell whether the pages may be shown."""
    if not has_sign_in():
        return True
    if not st.user.is_logged_in:
        st.title("Smart Image Analyzer")
        st.button("Sign in", on_click=st.login, type="primary")
        return False
    left, right = st.columns([5, 1], vertical_alignment="center")
    with left:
        remark(f"Signed in as {who()}")
    right.button("Sign out", on_click=st.logout)
    settings = desk.settings
    if not may_enter(st.user.to_dict(), settings.app_users, believe_email=settings.app_believe_email):
        st.error(
            "You are signed in, but not among those who may use this (APP_USERS), or your address is not verified "
            "(APP_BELIEVE_EMAIL). Ask whoever runs it."
        )
        return False
    return True


def has_sign_in() -> bool:
    """Tell whether Streamlit's login is set up: a section `auth` in `.streamlit/secrets.toml`."""
    return "is_logged_in" in st.user


def who() -> str:
    """Return whom decisions are signed by; empty while nobody has said so."""
    if has_sign_in():
        return str(st.user.get("email") or st.user.get("sub") or "")
    return str(st.session_state.get("name", "")).strip()


def choose_language() -> str:
    """Ask for one language; empty for all."""
    codes = ["", *supported_languages()]
    return st.selectbox("Language", codes, format_func=lambda code: display_name(code) if code else "All languages")


@st.cache_resource(max_entries=_PACKS, show_spinner=False)
def _read_pack(pack_uri: str) -> dict[str, bytes]:
    store = load_desk().faces.tools.store
    return dict(read_pack(store.read(pack_uri))) if store else {}


def thumbnail(uri: str | None) -> bytes | None:
    """Return what the models saw of a picture; None if it was not kept."""
    pack_uri, _, name = (uri or "").partition("#")
    return _read_pack(pack_uri).get(name.removesuffix(".jpg")) if pack_uri else None


@st.cache_data(max_entries=_SMALL_PICTURES, show_spinner=False)
def small_picture(uri: str) -> str:
    """Return a thumbnail as the `data:` address of a small JPEG; empty if it was not kept."""
    jpeg = thumbnail(uri)
    return shrink(jpeg) if jpeg else ""
