-- Purpose: one row by its key.
-- Binds:   image_uri, language
-- Caller:  ReviewDesk.save
SELECT * -- noqa: AM04
FROM IMAGE_RESULTS
WHERE IMAGE_URI = %(image_uri)s AND LANGUAGE = %(language)s
