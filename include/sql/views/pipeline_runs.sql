-- Purpose: what each run wrote. A run that changed no row is not here; whether it was green is in Airflow.
-- Grain:   one row per run that wrote rows.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW PIPELINE_RUNS (
    RUN_ID COMMENT 'Airflow run; single pictures of add-on and service are none',
    FIRST_AT COMMENT 'When it wrote its first row, UTC',
    LAST_AT COMMENT 'When it wrote its last row, UTC',
    ROWS_WRITTEN COMMENT 'Rows it inserted or changed',
    IMAGES COMMENT 'Image addresses of these',
    PUBLISHED COMMENT 'Rows with a published caption',
    IN_REVIEW COMMENT 'Rows that wait for a person',
    FAILED COMMENT 'Rows that failed',
    WAITING COMMENT 'Rows that wait for a later run',
    SKIPPED COMMENT 'Rows of objects that are no picture',
    COST_USD COMMENT 'Cost on the rows it wrote; what it re-wrote without asking keeps its old bill',
    TOP_FAILURE COMMENT 'Most frequent reason among the failed rows; null if none failed'
)
COPY GRANTS
COMMENT = 'What each run wrote, one row per run'
AS
-- The last version that a run wrote of a row before a person decided on it, which keeps the run's id: a run that was cleared or
-- tried again tells how it ended. Single pictures of add-on and service are no run.
WITH WRITTEN AS (
    SELECT *
    FROM IMAGE_VERSIONS
    WHERE NOT STARTSWITH(RUN_ID, 'adhoc')
    QUALIFY
        ROW_NUMBER() OVER (
            PARTITION BY IMAGE_URI, LANGUAGE, RUN_ID
            ORDER BY IFF(REVIEW_STATUS IS NULL, 0, 1) ASC, IFF(REVIEW_STATUS IS NULL, VALID_FROM, NULL) DESC, VALID_FROM ASC
        ) = 1
)

SELECT
    RUN_ID,
    MIN(VALID_FROM),
    MAX(VALID_FROM),
    COUNT(*),
    COUNT(DISTINCT IMAGE_URI),
    COUNT_IF(STATUS IN ('ok', 'decorative')),
    COUNT_IF(STATUS = 'needs_review'),
    COUNT_IF(STATUS = 'failed'),
    COUNT_IF(STATUS IN ('pending', 'pending_budget')),
    COUNT_IF(STATUS = 'skipped'),
    SUM(COST_USD),
    MODE(IFF(STATUS = 'failed', ERROR_CODE, NULL))
FROM WRITTEN
GROUP BY RUN_ID
