-- Offending: a published caption with a line break, or blank at an end.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS = 'ok' AND (GPT_SUMMARY <> TRIM(GPT_SUMMARY) OR CONTAINS(GPT_SUMMARY, CHR(10)) OR CONTAINS(GPT_SUMMARY, CHR(13))))
