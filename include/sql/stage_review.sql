-- Purpose: rows that a decision is about: the one that was looked at, if it still says what the person saw, and its copies.
-- Grain:   one row per image address; copies hold the same bytes in the same language and no decision of their own.
-- Binds:   image_uri, language; what the person saw: seen_sha256, seen_text, seen_rejected, seen_proposed, seen_review; the row
--          as decided: decision, text, rejected, status, error_code, error_message, decorative_reason, words, sentences, policy_version;
--          reviewed_by, note, overruled (JSON array)
-- Re-run:  safe, a temporary table of the session. A second decision on the same sight finds no row.
-- Caller:  ReviewDesk.save
CREATE OR REPLACE TEMPORARY TABLE RUN_ROWS AS
WITH SEEN AS (
    SELECT
        IMAGE_URI,
        LANGUAGE,
        SHA256
    FROM IMAGE_RESULTS
    WHERE
        IMAGE_URI = %(image_uri)s
        AND LANGUAGE = %(language)s
        AND EQUAL_NULL(SHA256, %(seen_sha256)s)
        AND EQUAL_NULL(GPT_SUMMARY, %(seen_text)s)
        AND EQUAL_NULL(REJECTED_CAPTION, %(seen_rejected)s)
        AND EQUAL_NULL(PROPOSED_CAPTION, %(seen_proposed)s)
        AND EQUAL_NULL(REVIEW_STATUS, %(seen_review)s)
)

SELECT
    R.IMAGE_URI,
    R.LANGUAGE,
    R.SHA256,
    R.CAPTION_ORIGIN,
    R.CAPTION_MODEL,
    R.PROMPT_VERSION,
    R.UPDATED_AT AS SEEN_UPDATED_AT,
    R.IMAGE_URI <> SEEN.IMAGE_URI AS IS_COPY,
    IFF(R.REVIEW_STATUS = 'picture_changed', R.PROPOSED_CAPTION, COALESCE(R.GPT_SUMMARY, R.REJECTED_CAPTION)) AS TEXT_BEFORE,
    %(decision)s AS DECISION,
    %(text)s AS TEXT_AFTER,
    %(rejected)s AS REJECTED_CAPTION,
    %(status)s AS STATUS,
    %(error_code)s AS ERROR_CODE,
    %(error_message)s AS ERROR_MESSAGE,
    %(decorative_reason)s AS DECORATIVE_REASON,
    %(words)s::NUMBER AS WORDS,
    %(sentences)s::NUMBER AS SENTENCES,
    %(policy_version)s AS POLICY_VERSION,
    %(reviewed_by)s AS REVIEWED_BY,
    %(note)s AS NOTE,
    PARSE_JSON(%(overruled)s) AS OVERRULED,
    -- As insert_history.sql wants it of whoever changes a row.
    'review' AS ROW_HASH,
    'review by ' || %(reviewed_by)s AS RUN_ID,
    TRUE AS SETTLED,
    CURRENT_TIMESTAMP() AS WRITTEN_AT
FROM IMAGE_RESULTS AS R
INNER JOIN SEEN
    ON R.LANGUAGE = SEEN.LANGUAGE
WHERE
    R.IMAGE_URI = SEEN.IMAGE_URI
    OR (R.SHA256 = SEEN.SHA256 AND R.REVIEW_STATUS IS NULL AND R.STATUS <> 'skipped')
