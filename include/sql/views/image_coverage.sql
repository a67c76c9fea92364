-- Purpose: how much of the pictures has a published caption.
-- Grain:   one row per language.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW IMAGE_COVERAGE (
    LANGUAGE COMMENT 'BCP 47 code',
    IMAGES COMMENT 'Image addresses in the table that are pictures, in whatever language they have rows',
    PUBLISHED COMMENT 'Those with a published caption in this language, decorative ones included',
    COVERAGE COMMENT 'PUBLISHED / IMAGES, 0 to 1',
    DECORATIVE COMMENT 'Those that need no caption',
    IN_REVIEW COMMENT 'Those that wait for a person',
    WAITING COMMENT 'Those that a run will still caption: pending, or waiting for budget',
    FAILED COMMENT 'Those that failed; ERROR_CODE of the row says whether the file is to blame or a run tries again',
    NO_ROW COMMENT 'Those without a row in this language',
    FLAGGED COMMENT 'Published ones that look odd and that nobody looked at'
)
COPY GRANTS
COMMENT = 'Coverage of pictures by captions, one row per language'
AS
WITH ALL_IMAGES AS (
    SELECT COUNT(DISTINCT IMAGE_URI) AS IMAGES
    FROM IMAGE_RESULTS
    WHERE STATUS <> 'skipped'
)

SELECT
    R.LANGUAGE,
    MAX(ALL_IMAGES.IMAGES),
    COUNT_IF(R.STATUS IN ('ok', 'decorative')),
    COUNT_IF(R.STATUS IN ('ok', 'decorative')) / MAX(ALL_IMAGES.IMAGES)::FLOAT,
    COUNT_IF(R.STATUS = 'decorative'),
    COUNT_IF(R.STATUS = 'needs_review'),
    COUNT_IF(R.STATUS IN ('pending', 'pending_budget')),
    COUNT_IF(R.STATUS = 'failed'),
    MAX(ALL_IMAGES.IMAGES) - COUNT(*),
    COUNT_IF(R.STATUS IN ('ok', 'decorative') AND R.FLAGS IS NOT NULL AND R.REVIEW_STATUS IS NULL)
FROM IMAGE_RESULTS AS R
CROSS JOIN ALL_IMAGES
WHERE R.STATUS <> 'skipped'
GROUP BY R.LANGUAGE
