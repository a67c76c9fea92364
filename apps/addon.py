"""What Streamlit runs: who may come in, and the pages."""

from __future__ import annotations

import streamlit as st

from caption_desk import browse, captions, health, reviewing
from caption_desk.desk import admit, load_desk, plainly

st.set_page_config(page_title="Smart Image Analyzer", page_icon=":material/image_search:", layout="wide")
with plainly():
    desk = load_desk()
    if admit(desk):
        pages = [
            st.Page(
                captions.show, title="Caption", url_path="caption", icon=":material/add_photo_alternate:", default=True
            ),
            st.Page(reviewing.show, title="Review", url_path="review", icon=":material/rate_review:"),
            st.Page(browse.show, title="Browse", url_path="browse", icon=":material/photo_library:"),
            st.Page(health.show, title="Health", url_path="health", icon=":material/monitoring:"),
        ]
        st.navigation(pages, position="top").run()
