"""Two elements that Streamlit has not: a text that is read while it is typed, and a sentence with a copy button."""

from __future__ import annotations

import streamlit as st

_CSS = """
:host { display: block; }
* { box-sizing: border-box; font-family: var(--st-font); }
label { display: block; font-size: .875rem; margin-bottom: .25rem; color: var(--st-text-color); }
textarea, .text { width: 100%; font-size: 1.15rem; line-height: 1.5; padding: .6rem .8rem; border-radius: .5rem;
  border: 1px solid #767676;
  background: var(--st-secondary-background-color); color: var(--st-text-color); }
.text { margin: 0 0 .4rem; border-color: transparent; }
textarea:focus-visible, button:focus-visible { outline: 3px solid var(--st-primary-color); outline-offset: 1px; }
button { font-size: .95rem; padding: .35rem .9rem; border-radius: .5rem; border: 1px solid currentColor; cursor: pointer;
  background: var(--st-background-color); color: var(--st-text-color); }
"""

# What was typed goes to Python after a pause, and at once before anything else may happen: on leaving, and before a shortcut.
_LIVE_JS = """
const PAUSE_MS = 250;
export default function ({ parentElement, data, setStateValue }) {
  const area = parentElement.querySelector("textarea");
  parentElement.querySelector("label").textContent = data.label;
  area.lang = data.language;
  if (area.dataset.row !== data.row) { area.dataset.row = data.row; area.value = data.text; }
  let sent = area.value, timer = null;
  const send = () => {
    clearTimeout(timer);
    if (area.value !== sent) { sent = area.value; setStateValue("text", sent); }
  };
  area.oninput = () => { clearTimeout(timer); timer = setTimeout(send, PAUSE_MS); };
  area.onblur = send;
  area.onkeydown = (event) => { if (event.altKey || event.ctrlKey || event.metaKey) send(); };
}
"""

_COPY_JS = """
export default function ({ parentElement, data }) {
  const text = parentElement.querySelector(".text"), button = parentElement.querySelector("button");
  text.textContent = data.text;
  text.lang = data.language;
  button.onclick = async () => {
    try { await navigator.clipboard.writeText(data.text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(text); button.textContent = "Selected: press Ctrl+C"; }
    setTimeout(() => { button.textContent = "Copy"; }, 3000);
  };
}
"""

_live = st.components.v2.component(
    "live_text",
    html='<label for="area"></label><textarea id="area" rows="3" dir="auto"></textarea>',
    css=_CSS,
    js=_LIVE_JS,
)
_copy = st.components.v2.component(
    "copy_text",
    html='<p class="text" dir="auto"></p><button type="button" aria-live="polite">Copy</button>',
    css=_CSS,
    js=_COPY_JS,
)


def live_text(label: str, text: str, language: str, *, key: str) -> str:
    """Show an editable text; return what is in it now, as it is typed.

    Args:
        key: Of what is edited: another key is another text.
    """
    result = _live(
        data={"label": label, "text": text, "language": language, "row": key},
        key=key,
        default={"text": text},
        on_text_change=lambda: None,
    )
    return str(result.text)


def copy_text(text: str, language: str, *, key: str) -> None:
    """Show a sentence with a button that copies it."""
    _copy(data={"text": text, "language": language}, key=key)
