-- Offending: a caption of which nobody knows who wrote it.
-- People:    their text is theirs; the counts of a reviewed row are the machine's.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS = 'ok' AND (CAPTION_ORIGIN IS NULL OR (CAPTION_ORIGIN <> 'person' AND (CAPTION_MODEL IS NULL OR PROMPT_VERSION IS NULL))))
    AND REVIEW_STATUS IS NULL
