-- Purpose: give rows about to be merged their flags, which are staged as documents {image_uri, language, flags}.
-- Re-run:  safe, RUN_ROWS is a temporary table of the session.
-- Caller:  Warehouse.merge
UPDATE RUN_ROWS
SET FLAGS = FOUND.FLAGS
FROM (
    SELECT
        DOC:image_uri::VARCHAR AS IMAGE_URI,
        DOC:language::VARCHAR AS LANGUAGE,
        DOC:flags AS FLAGS
    FROM (SELECT PARSE_JSON(ROW_JSON) AS DOC FROM RUN_STAGE) AS STAGED
) AS FOUND
WHERE RUN_ROWS.IMAGE_URI = FOUND.IMAGE_URI AND RUN_ROWS.LANGUAGE = FOUND.LANGUAGE
