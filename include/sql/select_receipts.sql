-- Purpose: captions that are already there for the staged contents, so that none is paid for twice and no decision is forgotten.
-- Grain:   one row per content and language: what a person decided last, at whatever address, which may have another picture by
--          now; else the row that paid.
-- Binds:   prompt_version, model, detail; all empty: by whichever model, the newest published one first
-- Caller:  Warehouse.select_receipts
WITH ASKED AS (
    SELECT DISTINCT
        DOC:sha256::VARCHAR AS SHA256,
        DOC:language::VARCHAR AS LANGUAGE
    FROM (SELECT PARSE_JSON(ROW_JSON) AS DOC FROM RUN_STAGE) AS STAGED
),

KNOWN AS (
    SELECT
        R.SHA256,
        R.LANGUAGE,
        R.PROMPT_VERSION,
        R.CAPTION_MODEL,
        R.IMAGE_DETAIL,
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
        R.REVIEW_STATUS AS DECISION,
        R.REVIEWED_AT AS DECIDED_AT,
        IFF(R.REVIEW_STATUS IS NULL, COALESCE(R.REUSED_FROM_URI, R.IMAGE_URI), R.IMAGE_URI) AS PAID_BY_URI,
        R.CAPTION_ORIGIN,
        R.CREATED_AT,
        0 AS PLACE
    FROM IMAGE_RESULTS AS R
    INNER JOIN ASKED
        ON R.SHA256 = ASKED.SHA256 AND R.LANGUAGE = ASKED.LANGUAGE
    WHERE
        R.REVIEW_STATUS IN ('approved', 'edited', 'rejected')
        OR (
            R.REVIEW_STATUS IS NULL
            AND R.CAPTION_ORIGIN IN ('model', 'reused')
            AND R.STATUS IN ('ok', 'decorative', 'needs_review')
            AND (
                %(model)s = ''
                OR (R.PROMPT_VERSION = %(prompt_version)s AND R.CAPTION_MODEL = %(model)s AND R.IMAGE_DETAIL = %(detail)s)
            )
        )
    UNION ALL
    SELECT
        V.SHA256,
        V.LANGUAGE,
        NULL,
        NULL,
        NULL,
        V.TEXT_AFTER,
        IFF(V.DECISION = 'rejected', V.TEXT_BEFORE, NULL),
        NULL, -- by the decision
        IFF(V.DECISION = 'rejected', V.REVIEW_NOTE, NULL),
        NULL,
        NULL::VARIANT,
        IFF(V.DECISION = 'decorative', V.REVIEW_NOTE, NULL),
        NULL,
        NULL,
        NULL,
        NULL,
        NULL,
        0,
        0,
        0,
        0,
        NULL,
        '',
        V.DECISION,
        V.REVIEWED_AT,
        V.IMAGE_URI,
        NULL,
        NULL,
        1
    FROM IMAGE_REVIEWS AS V
    INNER JOIN ASKED
        ON V.SHA256 = ASKED.SHA256 AND V.LANGUAGE = ASKED.LANGUAGE
)

SELECT *
FROM KNOWN
QUALIFY
    ROW_NUMBER() OVER (
        PARTITION BY SHA256, LANGUAGE
        ORDER BY
            IFF(DECISION IS NULL, 1, 0) ASC, DECIDED_AT DESC, PLACE ASC,
            IFF(%(model)s = '' AND GPT_SUMMARY IS NULL, 1, 0) ASC,
            IFF(%(model)s = '', CREATED_AT, NULL) DESC,
            CAPTION_ORIGIN ASC, CREATED_AT ASC
    ) = 1
