-- Offending: a score outside 0 to 1.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (PREDICTED_SCORE < 0 OR PREDICTED_SCORE > 1)
