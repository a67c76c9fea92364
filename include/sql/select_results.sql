-- Purpose: rows for people to read, newest first.
-- Binds:   status, language (empty string: any), row_limit
-- Caller:  Warehouse.select_results
SELECT * -- noqa: AM04
FROM IMAGE_RESULTS
WHERE
    (%(status)s = '' OR STATUS = %(status)s)
    AND (%(language)s = '' OR LANGUAGE = %(language)s)
    AND (%(run_id)s = '' OR RUN_ID = %(run_id)s)
ORDER BY UPDATED_AT DESC, IMAGE_URI ASC, LANGUAGE ASC
LIMIT %(row_limit)s
