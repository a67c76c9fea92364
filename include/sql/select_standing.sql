-- Purpose: rows as they stand, after a MERGE that may have left them as they were.
-- Grain:   one row per image address and language.
-- Binds:   uris (JSON array of image addresses)
-- Caller:  Warehouse.settle
SELECT * -- noqa: AM04
FROM IMAGE_RESULTS
WHERE
    IMAGE_URI IN (
        SELECT ITEM.VALUE::VARCHAR
        FROM (SELECT PARSE_JSON(%(uris)s) AS URIS) AS ASKED, LATERAL FLATTEN(INPUT => ASKED.URIS) AS ITEM
    )
