"""Page Health: coverage, money, failures and reviews, as plots."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from caption_desk.desk import load_desk

_FRESH_S = 60
_PARTS = {
    "PUBLISHED": "#2a7f4f", "IN_REVIEW": "#d9912b", "WAITING": "#5b8fc9", "FAILED": "#b3312f", "NO_ROW": "#9a9a9a",
}  # fmt: skip


def show() -> None:
    """Show the page."""
    st.title("Health")
    coverage, cost = _read("IMAGE_COVERAGE"), _read("CAPTION_COST_DAILY")
    if coverage.empty:
        st.info("There is nothing to see yet: IMAGE_RESULTS has no row.")
        return
    _show_figures(coverage, cost)
    left, right = st.columns(2)
    with left:
        st.header("Coverage by language")
        st.bar_chart(
            coverage,
            x="LANGUAGE",
            y=list(_PARTS),
            x_label="",  # Streamlit names the axes before it turns them
            y_label="Pictures",
            color=list(_PARTS.values()),
            horizontal=True,
            alt=_say(coverage, "LANGUAGE", "COVERAGE", "Share published"),
        )
    with right:
        st.header("Cost per day, US dollars")
        _plot(_by_day(cost, "COST_USD", "CAPTION_MODEL"), "Cost per day by model", bars=True)
    left, right = st.columns(2)
    with left:
        st.header("What is not published, by reason")
        failures = _read("UNPUBLISHED_REASONS")
        if failures.empty:
            st.success("Everything is published.")
        else:
            total = failures.groupby("REASON", as_index=False)[["IMAGES"]].sum()
            st.bar_chart(
                total,
                x="REASON",
                y="IMAGES",
                x_label="",
                y_label="Rows",
                horizontal=True,
                alt=_say(total, "REASON", "IMAGES", "Rows"),
            )
    with right:
        st.header("Sound at the first answer, share per day")
        quality = _read("CAPTION_QUALITY_DAILY")
        _plot(_by_day(quality, "AT_ONCE", "LANGUAGE", by="ANSWERS"), "Share sound at the first answer, by language")
    reviews = _read("REVIEW_OUTCOMES")
    left, right = st.columns(2)
    with left:
        st.header("Acceptance by reviewers, share per day")
        _plot(_by_day(reviews, "APPROVED", "LANGUAGE", by="DECISIONS"), "Share accepted unchanged, by language")
    with right:
        st.header("Edit distance, characters per edit")
        edited = reviews.dropna(subset=["MEAN_EDIT_DISTANCE"]) if not reviews.empty else reviews
        _plot(_by_day(edited, "MEAN_EDIT_DISTANCE", "LANGUAGE", mean=True), "Mean edit distance, by language")
    st.header("Last runs")
    runs = _read("PIPELINE_RUNS")
    newest = runs.sort_values("LAST_AT", ascending=False).head(20)
    st.dataframe(newest, hide_index=True, alt=f"The last {len(newest)} runs with their counts and cost")


@st.cache_data(ttl=_FRESH_S, show_spinner="Reading")
def _read(view: str) -> pd.DataFrame:
    return pd.DataFrame(load_desk().reviews.read_view(view)).convert_dtypes()


def _show_figures(coverage: pd.DataFrame, cost: pd.DataFrame) -> None:
    images = int(coverage["IMAGES"].max())
    figures: dict[str, Any] = {
        "Pictures": f"{images:,}",
        "Published captions": f"{int(coverage['PUBLISHED'].sum()):,}",
        "Wait for a person": f"{int(coverage['IN_REVIEW'].sum()):,}",
        "Paid in all": f"${float(cost['COST_USD'].sum()) if not cost.empty else 0:,.4f}",
    }
    for column, (name, value) in zip(st.columns(len(figures)), figures.items(), strict=True):
        column.metric(name, value)


def _by_day(rows: pd.DataFrame, value: str, series: str, *, by: str = "", mean: bool = False) -> pd.DataFrame:
    """Return days x series of a value: its sum, its mean, or the ratio of its sum to that of `by`."""
    if rows.empty:
        return rows
    rows = rows.assign(DAY=pd.to_datetime(rows["DAY"]).dt.date.astype(str), **{value: rows[value].astype(float)})
    table = rows.pivot_table(index="DAY", columns=series, values=value, aggfunc="mean" if mean else "sum")
    if by:
        whole = rows.assign(**{by: rows[by].astype(float)})
        table /= whole.pivot_table(index="DAY", columns=series, values=by, aggfunc="sum")
    return table


def _plot(table: pd.DataFrame, title: str, *, bars: bool = False) -> None:
    if table.empty:
        st.info("Nothing yet.")
        return
    last = "; ".join(f"{name} {value:.4g}" for name, value in table.iloc[-1].dropna().items())
    alt = f"{title}, {table.index[0]} to {table.index[-1]}. Last: {last}"
    if bars or len(table) == 1:  # a line of one point is not seen
        st.bar_chart(table, alt=alt, stack=bars or None)
    else:
        st.line_chart(table, alt=alt)


def _say(rows: pd.DataFrame, name: str, value: str, title: str) -> str:
    return f"{title}: " + "; ".join(f"{row[name]} {float(row[value]):.4g}" for _, row in rows.iterrows())
