-- Offending: a picture that was read and has no sha256, width or height.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS IN ('ok', 'decorative', 'pending', 'pending_budget', 'needs_review') AND (SHA256 IS NULL OR WIDTH_PX IS NULL OR HEIGHT_PX IS NULL))
