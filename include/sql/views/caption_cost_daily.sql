-- Purpose: what captions cost, by the day on which the row was written.
-- Grain:   one row per day (UTC), model and language.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW CAPTION_COST_DAILY (
    DAY COMMENT 'Day on which the answer was written into the table, UTC',
    CAPTION_MODEL COMMENT 'Model that was paid',
    LANGUAGE COMMENT 'BCP 47 code',
    CAPTIONS COMMENT 'Answers that were paid for, those that broke the contract included',
    REQUESTS COMMENT 'Requests these took',
    INPUT_TOKENS COMMENT 'Their input tokens',
    OUTPUT_TOKENS COMMENT 'Their output tokens',
    COST_USD COMMENT 'Their cost in US dollars',
    USD_PER_1000 COMMENT 'Cost of a thousand such captions',
    REUSED COMMENT 'Rows written that day that cost nothing, since the same bytes were paid for before'
)
COPY GRANTS
COMMENT = 'Cost of captions per day, model and language; replaced rows and unused answers are counted, too'
AS
-- A version counts once, on the day its bill was first written: later versions of a row often carry the same bill.
WITH ANSWERS AS (
    SELECT
        IMAGE_URI,
        LANGUAGE,
        SHA256,
        VALID_FROM,
        CAPTION_ORIGIN,
        CAPTION_MODEL,
        PROMPT_VERSION,
        IMAGE_DETAIL,
        ATTEMPTS,
        INPUT_TOKENS,
        OUTPUT_TOKENS,
        COST_USD
    FROM IMAGE_VERSIONS
    WHERE CAPTION_ORIGIN IN ('model', 'reused')
    UNION ALL
    SELECT
        IMAGE_URI,
        LANGUAGE,
        SHA256,
        ANSWERED_AT,
        'model',
        CAPTION_MODEL,
        PROMPT_VERSION,
        IMAGE_DETAIL,
        ATTEMPTS,
        INPUT_TOKENS,
        OUTPUT_TOKENS,
        COST_USD
    FROM IMAGE_UNUSED_ANSWERS
),

BILLS AS (
    SELECT *
    FROM ANSWERS
    QUALIFY
        ROW_NUMBER() OVER (
            PARTITION BY
                IMAGE_URI, LANGUAGE, SHA256, CAPTION_ORIGIN, CAPTION_MODEL, PROMPT_VERSION, IMAGE_DETAIL, ATTEMPTS, INPUT_TOKENS,
                OUTPUT_TOKENS, COST_USD
            ORDER BY VALID_FROM
        ) = 1
)

SELECT
    VALID_FROM::DATE,
    CAPTION_MODEL,
    LANGUAGE,
    COUNT_IF(CAPTION_ORIGIN = 'model'),
    SUM(ATTEMPTS),
    SUM(INPUT_TOKENS),
    SUM(OUTPUT_TOKENS),
    SUM(COST_USD),
    DIV0NULL(SUM(COST_USD) * 1000, COUNT_IF(CAPTION_ORIGIN = 'model')),
    COUNT_IF(CAPTION_ORIGIN = 'reused')
FROM BILLS
GROUP BY VALID_FROM::DATE, CAPTION_MODEL, LANGUAGE
