-- Offending: a published caption of more than 25 words, or of none.
-- People:    their text is theirs; the counts of a reviewed row are the machine's.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS = 'ok' AND (COALESCE(WORDS, 0) < 1 OR WORDS > 25))
    AND REVIEW_STATUS IS NULL
