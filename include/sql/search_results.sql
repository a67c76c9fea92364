-- Purpose: rows of IMAGE_RESULTS that fit what a person looks for, a page at a time.
-- Grain:   one row per image address and language, in order of these two; a page begins after the last row of the one before.
-- Binds:   words (in caption or file name, any case), status, language, label (hint), image_uri, sha256, from_day and to_day (UTC, of the
--          last change), an empty string for any; after_uri and after_language, empty for the first page; row_limit
-- Caller:  ReviewDesk.search
SELECT * -- noqa: AM04
FROM IMAGE_RESULTS
WHERE
    (
        %(words)s = ''
        OR CONTAINS(LOWER(COALESCE(GPT_SUMMARY, '')), LOWER(%(words)s))
        OR CONTAINS(LOWER(COALESCE(FILE_NAME, '')), LOWER(%(words)s))
    )
    AND (%(status)s = '' OR STATUS = %(status)s)
    AND (%(language)s = '' OR LANGUAGE = %(language)s)
    AND (%(label)s = '' OR CONTAINS(LOWER(COALESCE(PREDICTED_LABEL, '')), LOWER(%(label)s)))
    AND (%(image_uri)s = '' OR IMAGE_URI = %(image_uri)s)
    AND (%(sha256)s = '' OR SHA256 = %(sha256)s)
    AND (%(from_day)s = '' OR UPDATED_AT::DATE >= TO_DATE(NULLIF(%(from_day)s, '')))
    AND (%(to_day)s = '' OR UPDATED_AT::DATE <= TO_DATE(NULLIF(%(to_day)s, '')))
    AND (
        %(after_uri)s = ''
        OR IMAGE_URI > %(after_uri)s
        OR (IMAGE_URI = %(after_uri)s AND LANGUAGE > %(after_language)s)
    )
ORDER BY IMAGE_URI ASC, LANGUAGE ASC
LIMIT %(row_limit)s
