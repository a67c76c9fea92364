-- Offending: a published caption that does not say which wording policy it was checked against.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS IN ('ok', 'decorative') AND COALESCE(POLICY_VERSION, '') = '' AND COALESCE(CAPTION_ORIGIN, '') <> 'person')
    AND REVIEW_STATUS IS NULL
