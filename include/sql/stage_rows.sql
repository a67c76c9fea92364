-- Purpose: the typed, unique source of the MERGE: what changed or is new among the staged documents.
-- Grain:   one row per image address and language; of two with one key the newer object wins.
-- Binds:   tried_again (JSON array of error codes that time may mend)
-- Re-run:  safe, a temporary table of the session.
-- Caller:  Warehouse.merge
CREATE OR REPLACE TEMPORARY TABLE RUN_ROWS AS
WITH TYPED AS (
    SELECT
        DOC:image_uri::VARCHAR AS IMAGE_URI,
        DOC:language::VARCHAR AS LANGUAGE,
        DOC:s3_path::VARCHAR AS S3_PATH,
        DOC:file_name::VARCHAR AS FILE_NAME,
        DOC:source::VARCHAR AS SOURCE,
        DOC:etag::VARCHAR AS ETAG,
        DOC:last_modified_at::TIMESTAMP_TZ AS LAST_MODIFIED_AT,
        DOC:size_bytes::NUMBER AS SIZE_BYTES,
        DOC:mime_type::VARCHAR AS MIME_TYPE,
        DOC:extension_matches::BOOLEAN AS EXTENSION_MATCHES,
        DOC:sha256::VARCHAR AS SHA256,
        DOC:width_px::NUMBER AS WIDTH_PX,
        DOC:height_px::NUMBER AS HEIGHT_PX,
        DOC:frames::NUMBER AS FRAMES,
        DOC:colour_mode::VARCHAR AS COLOUR_MODE,
        DOC:thumbnail_uri::VARCHAR AS THUMBNAIL_URI,
        DOC:phash::VARCHAR AS PHASH,
        DOC:mean_colour::VARCHAR AS MEAN_COLOUR,
        DOC:predicted_label::VARCHAR AS PREDICTED_LABEL,
        DOC:predicted_score::FLOAT AS PREDICTED_SCORE,
        DOC:hints AS HINTS,
        DOC:hint_model::VARCHAR AS HINT_MODEL,
        DOC:gpt_summary::VARCHAR AS GPT_SUMMARY,
        DOC:status::VARCHAR AS STATUS,
        DOC:error_code::VARCHAR AS ERROR_CODE,
        DOC:error_message::VARCHAR AS ERROR_MESSAGE,
        DOC:rejected_caption::VARCHAR AS REJECTED_CAPTION,
        DOC:caption_origin::VARCHAR AS CAPTION_ORIGIN,
        DOC:caption_model::VARCHAR AS CAPTION_MODEL,
        DOC:prompt_version::VARCHAR AS PROMPT_VERSION,
        DOC:image_detail::VARCHAR AS IMAGE_DETAIL,
        DOC:policy_version::VARCHAR AS POLICY_VERSION,
        DOC:violations AS VIOLATIONS,
        DOC:decorative_reason::VARCHAR AS DECORATIVE_REASON,
        DOC:contains_person::BOOLEAN AS CONTAINS_PERSON,
        DOC:visible_text::BOOLEAN AS VISIBLE_TEXT,
        DOC:uncertain::BOOLEAN AS UNCERTAIN,
        DOC:reused_from_uri::VARCHAR AS REUSED_FROM_URI,
        DOC:words::NUMBER AS WORDS,
        DOC:sentences::NUMBER AS SENTENCES,
        DOC:attempts::NUMBER AS ATTEMPTS,
        DOC:input_tokens::NUMBER AS INPUT_TOKENS,
        DOC:output_tokens::NUMBER AS OUTPUT_TOKENS,
        DOC:cost_usd::FLOAT AS COST_USD,
        DOC:latency_s::FLOAT AS LATENCY_S,
        DOC:row_hash::VARCHAR AS ROW_HASH,
        DOC:run_id::VARCHAR AS RUN_ID
    FROM (SELECT PARSE_JSON(ROW_JSON) AS DOC FROM RUN_STAGE) AS STAGED
    QUALIFY ROW_NUMBER() OVER (PARTITION BY IMAGE_URI, LANGUAGE ORDER BY LAST_MODIFIED_AT DESC, ROW_HASH ASC) = 1
),

AGAIN AS (
    SELECT ITEM.VALUE::VARCHAR AS CODE
    FROM (SELECT PARSE_JSON(%(tried_again)s) AS CODES) AS ASKED, LATERAL FLATTEN(INPUT => ASKED.CODES) AS ITEM
)

SELECT
    TYPED.*,
    NULL::VARIANT AS FLAGS, -- flag_rows.sql
    CURRENT_TIMESTAMP() AS WRITTEN_AT,
    -- What was read is settled; a fault that time may mend says nothing about the picture.
    (TYPED.SHA256 IS NOT NULL OR AGAIN.CODE IS NULL) AS SETTLED
FROM TYPED
LEFT JOIN AGAIN
    ON TYPED.ERROR_CODE = AGAIN.CODE
LEFT JOIN IMAGE_RESULTS AS OLD
    ON TYPED.IMAGE_URI = OLD.IMAGE_URI AND TYPED.LANGUAGE = OLD.LANGUAGE
WHERE
    OLD.ROW_HASH IS NULL
    OR (
        OLD.ROW_HASH <> TYPED.ROW_HASH
        -- What was answered is not taken down because tonight's run has no answer: the old row stays, and is tried again.
        AND NOT (
            OLD.STATUS IN ('ok', 'decorative', 'needs_review')
            AND TYPED.GPT_SUMMARY IS NULL
            AND TYPED.STATUS <> 'needs_review'
            AND (TYPED.ERROR_CODE IS NULL OR AGAIN.CODE IS NOT NULL)
            AND (TYPED.SHA256 IS NULL OR TYPED.SHA256 = OLD.SHA256)
        )
        -- Nor is it written over by the offline describer, which says little.
        AND NOT (
            OLD.STATUS IN ('ok', 'decorative', 'needs_review')
            AND COALESCE(OLD.CAPTION_ORIGIN, '') IN ('model', 'reused', 'person')
            AND COALESCE(TYPED.CAPTION_ORIGIN, '') = 'offline'
            AND COALESCE(TYPED.SHA256 = OLD.SHA256, FALSE)
        )
        -- Nor because a newer prompt or model could not make a better one.
        AND NOT (
            OLD.STATUS IN ('ok', 'decorative')
            AND TYPED.GPT_SUMMARY IS NULL
            AND COALESCE(TYPED.SHA256 = OLD.SHA256, FALSE)
            AND COALESCE(OLD.CAPTION_ORIGIN, '') IN ('model', 'reused')
            AND (
                COALESCE(TYPED.PROMPT_VERSION <> OLD.PROMPT_VERSION, FALSE)
                OR COALESCE(TYPED.CAPTION_MODEL <> OLD.CAPTION_MODEL, FALSE)
                OR COALESCE(TYPED.IMAGE_DETAIL <> OLD.IMAGE_DETAIL, FALSE)
            )
        )
    )
