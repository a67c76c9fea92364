-- Purpose: which staged objects lack a row, in which languages, and what is known of the same version of them.
-- Grain:   one row per object that lacks something; same version means same ETag and same Last-Modified.
-- Binds:   languages, tried_again (error codes), both JSON arrays; want_captions, want_hints, replace_offline;
--          row_limit, null for all
-- Caller:  Warehouse.select_missing
WITH LISTING AS (
    SELECT
        DOC:uri::VARCHAR AS IMAGE_URI,
        DOC:etag::VARCHAR AS ETAG,
        DOC:size_bytes::NUMBER AS SIZE_BYTES,
        DOC:last_modified_at::TIMESTAMP_TZ AS LAST_MODIFIED_AT
    FROM (SELECT PARSE_JSON(ROW_JSON) AS DOC FROM RUN_STAGE) AS STAGED
),

WANTED AS (
    SELECT
        ITEM.VALUE::VARCHAR AS LANGUAGE,
        ITEM.INDEX AS POSITION
    FROM (SELECT PARSE_JSON(%(languages)s) AS LANGUAGES) AS ASKED, LATERAL FLATTEN(INPUT => ASKED.LANGUAGES) AS ITEM
),

AGAIN AS (
    SELECT ITEM.VALUE::VARCHAR AS CODE
    FROM (SELECT PARSE_JSON(%(tried_again)s) AS CODES) AS ASKED, LATERAL FLATTEN(INPUT => ASKED.CODES) AS ITEM
),

-- A pipeline's fault is tried again; a picture's fault is final until the picture changes.
DONE AS (
    SELECT
        R.IMAGE_URI,
        R.LANGUAGE,
        R.ETAG,
        R.LAST_MODIFIED_AT
    FROM IMAGE_RESULTS AS R
    LEFT JOIN AGAIN
        ON R.ERROR_CODE = AGAIN.CODE
    WHERE
        (
            R.REVIEW_STATUS IS NOT NULL
            AND NOT (R.REVIEW_STATUS = 'picture_changed' AND R.PROPOSED_CAPTION IS NULL AND AGAIN.CODE IS NOT NULL)
        )
        OR (
            R.STATUS IN ('ok', 'decorative', 'needs_review', 'skipped') AND AGAIN.CODE IS NULL AND R.REVIEW_STATUS IS NULL
            AND NOT (%(replace_offline)s AND COALESCE(R.CAPTION_ORIGIN, '') = 'offline')
        )
        OR (R.STATUS = 'failed' AND AGAIN.CODE IS NULL)
        OR (
            R.STATUS IN ('pending', 'pending_budget') AND NOT %(want_captions)s
            AND (NOT %(want_hints)s OR COALESCE(R.HINT_MODEL, 'off') <> 'off')
        )
),

KNOWN AS (
    SELECT
        IMAGE_URI,
        ETAG,
        LAST_MODIFIED_AT,
        SHA256,
        MIME_TYPE,
        EXTENSION_MATCHES,
        WIDTH_PX,
        HEIGHT_PX,
        FRAMES,
        COLOUR_MODE,
        THUMBNAIL_URI
    FROM IMAGE_RESULTS
    WHERE THUMBNAIL_URI IS NOT NULL
    QUALIFY ROW_NUMBER() OVER (PARTITION BY IMAGE_URI ORDER BY UPDATED_AT DESC, LANGUAGE ASC) = 1
),

MISSING AS (
    SELECT
        LISTING.IMAGE_URI,
        LISTING.ETAG,
        LISTING.SIZE_BYTES,
        LISTING.LAST_MODIFIED_AT,
        LISTAGG(WANTED.LANGUAGE, ',') WITHIN GROUP (ORDER BY WANTED.POSITION) AS LANGUAGES
    FROM LISTING
    CROSS JOIN WANTED
    LEFT JOIN DONE
        ON
            LISTING.IMAGE_URI = DONE.IMAGE_URI
            AND WANTED.LANGUAGE = DONE.LANGUAGE
            AND LISTING.ETAG = DONE.ETAG
            AND LISTING.LAST_MODIFIED_AT = DONE.LAST_MODIFIED_AT
    WHERE DONE.IMAGE_URI IS NULL
    GROUP BY LISTING.IMAGE_URI, LISTING.ETAG, LISTING.SIZE_BYTES, LISTING.LAST_MODIFIED_AT
)

SELECT
    MISSING.IMAGE_URI,
    MISSING.ETAG,
    MISSING.SIZE_BYTES,
    MISSING.LAST_MODIFIED_AT,
    MISSING.LANGUAGES,
    KNOWN.SHA256,
    KNOWN.MIME_TYPE,
    KNOWN.EXTENSION_MATCHES,
    KNOWN.WIDTH_PX,
    KNOWN.HEIGHT_PX,
    KNOWN.FRAMES,
    KNOWN.COLOUR_MODE,
    KNOWN.THUMBNAIL_URI
FROM MISSING
LEFT JOIN KNOWN
    ON
        MISSING.IMAGE_URI = KNOWN.IMAGE_URI
        AND MISSING.ETAG = KNOWN.ETAG
        AND MISSING.LAST_MODIFIED_AT = KNOWN.LAST_MODIFIED_AT
ORDER BY MISSING.IMAGE_URI
LIMIT %(row_limit)s
