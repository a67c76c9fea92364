-- Purpose: how good the answers of models were, by the day on which they were written.
-- Grain:   one row per day (UTC), model, prompt version and language.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW CAPTION_QUALITY_DAILY (
    DAY COMMENT 'Day on which the answer was written into the table, UTC',
    CAPTION_MODEL COMMENT 'Model that answered',
    PROMPT_VERSION COMMENT 'Version of the prompt',
    LANGUAGE COMMENT 'BCP 47 code',
    ANSWERS COMMENT 'Contents that were captioned',
    PUBLISHED COMMENT 'Answers that were published',
    AT_ONCE COMMENT 'Published ones whose first answer broke no rule',
    SHARE_AT_ONCE COMMENT 'AT_ONCE / ANSWERS, 0 to 1',
    IN_REVIEW COMMENT 'Answers that were not published: refused, or against the contract',
    MEAN_WORDS COMMENT 'Mean number of words of the published ones',
    MEAN_LATENCY_S COMMENT 'Mean seconds that an answer took'
)
COPY GRANTS
COMMENT = 'Quality of answers per day, model, prompt and language'
AS
WITH GIVEN AS (
    SELECT
        SHA256,
        LANGUAGE,
        VALID_FROM,
        STATUS,
        VIOLATIONS,
        WORDS,
        CAPTION_MODEL,
        PROMPT_VERSION,
        IMAGE_DETAIL,
        LATENCY_S
    FROM IMAGE_VERSIONS
    WHERE CAPTION_ORIGIN = 'model' AND REVIEW_STATUS IS NULL
    UNION ALL
    SELECT
        SHA256,
        LANGUAGE,
        ANSWERED_AT,
        STATUS,
        VIOLATIONS,
        NULL,
        CAPTION_MODEL,
        PROMPT_VERSION,
        IMAGE_DETAIL,
        LATENCY_S
    FROM IMAGE_UNUSED_ANSWERS
),

ANSWERS AS (
    SELECT *
    FROM GIVEN
    QUALIFY
        ROW_NUMBER() OVER (
            PARTITION BY SHA256, LANGUAGE, CAPTION_MODEL, PROMPT_VERSION, IMAGE_DETAIL
            ORDER BY VALID_FROM
        ) = 1
)

SELECT
    VALID_FROM::DATE,
    CAPTION_MODEL,
    PROMPT_VERSION,
    LANGUAGE,
    COUNT(*),
    COUNT_IF(STATUS IN ('ok', 'decorative')),
    COUNT_IF(STATUS IN ('ok', 'decorative') AND VIOLATIONS IS NULL),
    COUNT_IF(STATUS IN ('ok', 'decorative') AND VIOLATIONS IS NULL) / COUNT(*)::FLOAT,
    COUNT_IF(STATUS = 'needs_review'),
    AVG(IFF(STATUS = 'ok', WORDS, NULL)),
    AVG(LATENCY_S)
FROM ANSWERS
GROUP BY VALID_FROM::DATE, CAPTION_MODEL, PROMPT_VERSION, LANGUAGE
