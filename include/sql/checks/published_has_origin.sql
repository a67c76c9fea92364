-- Offending: a caption of which nobody knows who wrote it.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS = 'ok' AND (CAPTION_ORIGIN IS NULL OR CAPTION_MODEL IS NULL OR PROMPT_VERSION IS NULL))
