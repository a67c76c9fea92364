-- Offending: a decorative row that has a caption or no reason, unless a person decided so.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS = 'decorative' AND (COALESCE(GPT_SUMMARY, 'none') <> '' OR COALESCE(DECORATIVE_REASON, '') = ''))
    AND REVIEW_STATUS IS NULL
