-- Offending: a row that is ok without a caption, or not ok with one that no person wrote.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND ((STATUS = 'ok') <> (COALESCE(GPT_SUMMARY, '') <> '') AND REVIEW_STATUS IS NULL)
