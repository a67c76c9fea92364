-- Purpose: rows of IMAGE_RESULTS to run through the steps again, each with the first reason that holds, and what is known of the picture.
-- Grain:   one row per image address and language; a language that has no row yet counts as one. People's rows are left alone.
-- Binds:   languages, reasons, policies (pairs of language and version), JSON arrays; prefix (begin of the address); prompt_version,
--          model, detail, hint_model (empty: not looked at); from_day, to_day (when the object was last changed, UTC; empty: any)
-- Caller:  Warehouse.select_stale
WITH WANTED AS (
    SELECT
        ITEM.VALUE::VARCHAR AS LANGUAGE,
        ITEM.INDEX AS POSITION
    FROM (SELECT PARSE_JSON(%(languages)s) AS LANGUAGES) AS ASKED, LATERAL FLATTEN(INPUT => ASKED.LANGUAGES) AS ITEM
),

TODAYS_POLICY AS (
    SELECT
        ITEM.VALUE[0]::VARCHAR AS LANGUAGE,
        ITEM.VALUE[1]::VARCHAR AS POLICY_VERSION
    FROM (SELECT PARSE_JSON(%(policies)s) AS PAIRS) AS ASKED, LATERAL FLATTEN(INPUT => ASKED.PAIRS) AS ITEM
),

ASKED_REASONS AS (
    SELECT ITEM.VALUE::VARCHAR AS REASON
    FROM (SELECT PARSE_JSON(%(reasons)s) AS REASONS) AS ASKED, LATERAL FLATTEN(INPUT => ASKED.REASONS) AS ITEM
),

PICTURES AS (
    SELECT *
    FROM IMAGE_RESULTS
    WHERE
        SOURCE = 's3'
        AND STARTSWITH(IMAGE_URI, %(prefix)s)
        AND (
            %(from_day)s = ''
            OR CONVERT_TIMEZONE('UTC', LAST_MODIFIED_AT)::DATE >= TO_DATE(NULLIF(%(from_day)s, ''))
        )
        AND (
            %(to_day)s = ''
            OR CONVERT_TIMEZONE('UTC', LAST_MODIFIED_AT)::DATE <= TO_DATE(NULLIF(%(to_day)s, ''))
        )
    QUALIFY ROW_NUMBER() OVER (PARTITION BY IMAGE_URI ORDER BY UPDATED_AT DESC, LANGUAGE ASC) = 1
),

JUDGED AS (
    SELECT
        PICTURES.IMAGE_URI,
        WANTED.LANGUAGE,
        WANTED.POSITION,
        CASE
            WHEN R.IMAGE_URI IS NULL THEN IFF(PICTURES.STATUS = 'skipped', NULL, 'language')
            WHEN R.REVIEW_STATUS IS NOT NULL THEN NULL
            WHEN %(model)s = '' AND R.CAPTION_ORIGIN IN ('model', 'reused') THEN NULL -- the offline describer would write over it
            WHEN %(model)s <> '' AND R.CAPTION_ORIGIN = 'offline' THEN 'model'
            WHEN R.STATUS = 'failed' THEN 'failed'
            WHEN R.STATUS = 'pending_budget' THEN 'budget'
            WHEN R.STATUS = 'pending' THEN 'caption'
            WHEN R.CAPTION_ORIGIN IN ('model', 'reused') AND (R.CAPTION_MODEL <> %(model)s OR R.IMAGE_DETAIL <> %(detail)s) THEN 'model'
            WHEN R.CAPTION_ORIGIN IN ('model', 'reused') AND R.PROMPT_VERSION <> %(prompt_version)s THEN 'prompt'
            WHEN R.CAPTION_ORIGIN IN ('model', 'reused') AND COALESCE(R.POLICY_VERSION, '') <> TODAYS_POLICY.POLICY_VERSION THEN 'policy'
            WHEN %(hint_model)s <> '' AND R.STATUS <> 'skipped' AND COALESCE(R.HINT_MODEL, '') <> %(hint_model)s THEN 'hint'
        END AS REASON
    FROM PICTURES
    CROSS JOIN WANTED
    LEFT JOIN IMAGE_RESULTS AS R
        ON PICTURES.IMAGE_URI = R.IMAGE_URI AND WANTED.LANGUAGE = R.LANGUAGE
    LEFT JOIN TODAYS_POLICY
        ON WANTED.LANGUAGE = TODAYS_POLICY.LANGUAGE
)

SELECT
    JUDGED.LANGUAGE,
    JUDGED.REASON,
    PICTURES.IMAGE_URI,
    PICTURES.ETAG,
    PICTURES.SIZE_BYTES,
    PICTURES.LAST_MODIFIED_AT,
    PICTURES.SHA256,
    PICTURES.MIME_TYPE,
    PICTURES.EXTENSION_MATCHES,
    PICTURES.WIDTH_PX,
    PICTURES.HEIGHT_PX,
    PICTURES.FRAMES,
    PICTURES.COLOUR_MODE,
    PICTURES.THUMBNAIL_URI
FROM JUDGED
INNER JOIN ASKED_REASONS
    ON JUDGED.REASON = ASKED_REASONS.REASON
INNER JOIN PICTURES
    ON JUDGED.IMAGE_URI = PICTURES.IMAGE_URI
ORDER BY PICTURES.IMAGE_URI, JUDGED.POSITION
