-- Purpose: how many rows a decision is about, and whether the one that was looked at is among them.
-- Caller:  ReviewDesk.save
SELECT
    COUNT(*) AS STAGED,
    COALESCE(COUNT_IF(NOT IS_COPY), 0) AS SEEN
FROM RUN_ROWS
