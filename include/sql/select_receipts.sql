-- Purpose: captions that IMAGE_RESULTS already holds for the staged contents, so that none is paid for twice.
-- Grain:   one row per content and language: what a person decided last, whoever wrote it; else the row that paid.
-- Binds:   prompt_version, model, detail
-- Caller:  Warehouse.select_receipts
WITH ASKED AS (
    SELECT DISTINCT
        DOC:sha256::VARCHAR AS SHA256,
        DOC:language::VARCHAR AS LANGUAGE
    FROM (SELECT PARSE_JSON(ROW_JSON) AS DOC FROM RUN_STAGE) AS STAGED
)

SELECT
    R.SHA256,
    R.LANGUAGE,
    R.GPT_SUMMARY,
    R.REJECTED_CAPTION,
    R.ERROR_CODE,
    R.ERROR_MESSAGE,
    R.POLICY_VERSION,
    R.VIOLATIONS,
    R.DECORATIVE_REASON,
    R.CONTAINS_PERSON,
    R.VISIBLE_TEXT,
    R.UNCERTAIN,
    R.WORDS,
    R.SENTENCES,
    R.ATTEMPTS,
    R.INPUT_TOKENS,
    R.OUTPUT_TOKENS,
    R.COST_USD,
    R.LATENCY_S,
    R.RUN_ID,
    R.REVIEW_STATUS,
    IFF(R.REVIEW_STATUS IS NULL, COALESCE(R.REUSED_FROM_URI, R.IMAGE_URI), R.IMAGE_URI) AS PAID_BY_URI
FROM IMAGE_RESULTS AS R
INNER JOIN ASKED
    ON R.SHA256 = ASKED.SHA256 AND R.LANGUAGE = ASKED.LANGUAGE
WHERE
    R.REVIEW_STATUS IN ('approved', 'edited', 'rejected')
    OR (
        R.REVIEW_STATUS IS NULL
        AND R.CAPTION_ORIGIN IN ('model', 'reused')
        AND R.STATUS IN ('ok', 'decorative', 'needs_review')
        AND R.PROMPT_VERSION = %(prompt_version)s
        AND R.CAPTION_MODEL = %(model)s
        AND R.IMAGE_DETAIL = %(detail)s
    )
QUALIFY
    ROW_NUMBER() OVER (
        PARTITION BY R.SHA256, R.LANGUAGE
        ORDER BY IFF(R.REVIEW_STATUS IS NULL, 1, 0) ASC, R.REVIEWED_AT DESC, R.CAPTION_ORIGIN ASC, R.CREATED_AT ASC
    ) = 1
