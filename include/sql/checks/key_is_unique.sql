-- Offending: an image address and language that this run wrote and that has more than one row.
-- Grain:     one row per such key.
-- Caller:    Warehouse.check
SELECT
    IMAGE_URI,
    LANGUAGE
FROM IMAGE_RESULTS
GROUP BY IMAGE_URI, LANGUAGE
HAVING COUNT(*) > 1 AND MAX(IFF(RUN_ID = %(run_id)s, 1, 0)) = 1
