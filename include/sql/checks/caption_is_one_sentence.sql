-- Offending: a published caption that is not exactly one sentence.
-- People:    their text is theirs; the counts of a reviewed row are the machine's.
-- Grain:     one row per offending row of this run.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
WHERE
    RUN_ID = %(run_id)s
    AND (STATUS = 'ok' AND COALESCE(SENTENCES, 0) <> 1)
    AND REVIEW_STATUS IS NULL
