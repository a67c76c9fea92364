-- Purpose: why rows have no published caption, for whoever asks what to do next.
-- Grain:   one row per status, reason and language.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW UNPUBLISHED_REASONS (
    STATUS COMMENT 'Status of the rows',
    REASON COMMENT 'Their ERROR_CODE; the status where there is none',
    LANGUAGE COMMENT 'BCP 47 code',
    IMAGES COMMENT 'Image addresses without a published caption for this reason',
    SINCE COMMENT 'When the oldest of these rows was last changed, UTC',
    EXAMPLE_URI COMMENT 'One of these addresses'
)
COPY GRANTS
COMMENT = 'Rows without a published caption by reason'
AS
SELECT
    STATUS,
    COALESCE(ERROR_CODE, STATUS),
    LANGUAGE,
    COUNT(*),
    MIN(UPDATED_AT),
    MIN(IMAGE_URI)
FROM IMAGE_RESULTS
WHERE STATUS NOT IN ('ok', 'decorative')
GROUP BY STATUS, COALESCE(ERROR_CODE, STATUS), LANGUAGE
