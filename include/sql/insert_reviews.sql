-- Purpose: keep who decided what, one row per decision and row of IMAGE_RESULTS it is about.
-- Re-run:  safe, it runs in the transaction of update_reviewed.sql.
-- Caller:  ReviewDesk.save
INSERT INTO IMAGE_REVIEWS (
    IMAGE_URI, LANGUAGE, SHA256, DECISION, REVIEWED_BY, REVIEWED_AT, REVIEW_NOTE, OVERRULED, TEXT_BEFORE, TEXT_AFTER, CAPTION_ORIGIN,
    CAPTION_MODEL, PROMPT_VERSION, IS_COPY
)
SELECT
    IMAGE_URI,
    LANGUAGE,
    SHA256,
    DECISION,
    REVIEWED_BY,
    WRITTEN_AT,
    NOTE,
    OVERRULED,
    TEXT_BEFORE,
    TEXT_AFTER,
    CAPTION_ORIGIN,
    CAPTION_MODEL,
    PROMPT_VERSION,
    IS_COPY
FROM RUN_ROWS
