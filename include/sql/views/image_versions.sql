-- Purpose: every version that a row of IMAGE_RESULTS ever had, the present one included.
-- Grain:   one row per image address, language and version.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW IMAGE_VERSIONS (
    IMAGE_URI COMMENT 'Image address',
    LANGUAGE COMMENT 'BCP 47 code of the caption',
    VALID_FROM COMMENT 'When this version was written, UTC',
    VALID_TO COMMENT 'When it was replaced, UTC; null for the present version',
    RUN_ID COMMENT 'Airflow run that wrote the row, before people decided on it',
    SHA256 COMMENT 'SHA-256 of the picture',
    STATUS COMMENT 'Status of the row in this version',
    ERROR_CODE COMMENT 'Why it was not ok',
    GPT_SUMMARY COMMENT 'Published caption in this version',
    REJECTED_CAPTION COMMENT 'Text that was not published',
    CAPTION_ORIGIN COMMENT 'Where the caption came from',
    CAPTION_MODEL COMMENT 'Model that wrote the caption',
    PROMPT_VERSION COMMENT 'Version of the prompt',
    IMAGE_DETAIL COMMENT 'Image detail that was asked for',
    VIOLATIONS COMMENT 'Codes of the rules that any attempt broke',
    WORDS COMMENT 'Words of the caption',
    ATTEMPTS COMMENT 'Requests the caption took',
    INPUT_TOKENS COMMENT 'Input tokens of these',
    OUTPUT_TOKENS COMMENT 'Output tokens of these',
    COST_USD COMMENT 'What they cost',
    LATENCY_S COMMENT 'Seconds they took',
    REVIEW_STATUS COMMENT 'What a person had decided by then',
    REVIEWED_BY COMMENT 'Person who had'
)
COPY GRANTS
COMMENT = 'Every version of every row: what the table said at any time'
AS
SELECT
    IMAGE_URI,
    LANGUAGE,
    UPDATED_AT,
    NULL::TIMESTAMP_TZ,
    RUN_ID,
    SHA256,
    STATUS,
    ERROR_CODE,
    GPT_SUMMARY,
    REJECTED_CAPTION,
    CAPTION_ORIGIN,
    CAPTION_MODEL,
    PROMPT_VERSION,
    IMAGE_DETAIL,
    VIOLATIONS,
    WORDS,
    ATTEMPTS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    COST_USD,
    LATENCY_S,
    REVIEW_STATUS,
    REVIEWED_BY
FROM IMAGE_RESULTS
UNION ALL
SELECT
    IMAGE_URI,
    LANGUAGE,
    OLD_ROW:UPDATED_AT::TIMESTAMP_TZ,
    REPLACED_AT,
    OLD_ROW:RUN_ID::VARCHAR,
    OLD_ROW:SHA256::VARCHAR,
    OLD_ROW:STATUS::VARCHAR,
    OLD_ROW:ERROR_CODE::VARCHAR,
    OLD_ROW:GPT_SUMMARY::VARCHAR,
    OLD_ROW:REJECTED_CAPTION::VARCHAR,
    OLD_ROW:CAPTION_ORIGIN::VARCHAR,
    OLD_ROW:CAPTION_MODEL::VARCHAR,
    OLD_ROW:PROMPT_VERSION::VARCHAR,
    OLD_ROW:IMAGE_DETAIL::VARCHAR,
    PARSE_JSON(OLD_ROW:VIOLATIONS::VARCHAR), -- by way of text: in a document an unknown list is a JSON null, which is not NULL
    OLD_ROW:WORDS::NUMBER,
    OLD_ROW:ATTEMPTS::NUMBER,
    OLD_ROW:INPUT_TOKENS::NUMBER,
    OLD_ROW:OUTPUT_TOKENS::NUMBER,
    OLD_ROW:COST_USD::FLOAT,
    OLD_ROW:LATENCY_S::FLOAT,
    OLD_ROW:REVIEW_STATUS::VARCHAR,
    OLD_ROW:REVIEWED_BY::VARCHAR
FROM IMAGE_RESULTS_HISTORY
