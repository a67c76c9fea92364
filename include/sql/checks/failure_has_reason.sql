-- Offending: a row that is skipped, failed or in review without a reason.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS IN ('skipped', 'failed', 'needs_review') AND ERROR_CODE IS NULL AND REVIEW_STATUS IS NULL)
