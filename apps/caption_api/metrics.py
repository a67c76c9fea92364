"""What the service counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from image_analyzer.steps.upload import Uploaded

REQUESTS = Counter("image_analyzer_api_requests", "Requests by method, route and status", ["method", "route", "status"])
SECONDS = Histogram("image_analyzer_api_seconds", "Time of requests by route", ["route"])
CAPTIONS = Counter("image_analyzer_api_captions", "Captions by status and origin", ["status", "origin"])
COST = Counter("image_analyzer_api_cost_usd", "Cost of captions in US dollars")
NOT_STORED = Counter("image_analyzer_api_not_stored", "Answers that IMAGE_RESULTS could not take")


def count_upload(uploaded: Uploaded) -> None:
    """Count what came of one picture."""
    for row in uploaded.rows:
        CAPTIONS.labels(row.status, row.caption_origin or "").inc()
    COST.inc(sum(paid or 0.0 for paid in uploaded.paid_usd.values()))
    if not uploaded.stored:
        NOT_STORED.inc()
