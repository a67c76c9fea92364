-- Offending: a negative cost, or a cost on a caption that was not paid for.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (COST_USD < 0 OR (CAPTION_ORIGIN IN ('reused', 'person', 'offline') AND COALESCE(COST_USD, 0) <> 0))
