-- Purpose: pictures that are there more than once: the same bytes, or versions of one picture.
-- Grain:   one row per image address and other address.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW DUPLICATE_IMAGES (
    KIND COMMENT 'same_bytes, or near_duplicate (another size, brightness, file format; by perceptual hash, to be looked at)',
    IMAGE_URI COMMENT 'Image address',
    OTHER_URI COMMENT 'same_bytes: the first address that had these bytes; near_duplicate: the address it looks like',
    SHA256 COMMENT 'SHA-256 of the picture',
    FILE_NAME COMMENT 'Last part of the key',
    SIZE_BYTES COMMENT 'Size in bytes: what is saved if the address goes'
)
COPY GRANTS
COMMENT = 'Copies and near duplicates in S3, one row per pair of addresses'
AS
WITH IMAGES AS (
    SELECT *
    FROM IMAGE_RESULTS
    WHERE SHA256 IS NOT NULL AND S3_PATH IS NOT NULL -- an upload that was not archived lies nowhere
    QUALIFY ROW_NUMBER() OVER (PARTITION BY IMAGE_URI ORDER BY LANGUAGE) = 1
),

NUMBERED AS (
    SELECT
        IMAGE_URI,
        SHA256,
        FILE_NAME,
        SIZE_BYTES,
        FIRST_VALUE(IMAGE_URI) OVER (PARTITION BY SHA256 ORDER BY CREATED_AT ASC, IMAGE_URI ASC) AS FIRST_URI
    FROM IMAGES
)

SELECT
    'same_bytes',
    IMAGE_URI,
    FIRST_URI,
    SHA256,
    FILE_NAME,
    SIZE_BYTES
FROM NUMBERED
WHERE IMAGE_URI <> FIRST_URI
UNION DISTINCT
SELECT
    'near_duplicate',
    R.IMAGE_URI,
    FLAG.VALUE:image_uri::VARCHAR,
    R.SHA256,
    R.FILE_NAME,
    R.SIZE_BYTES
FROM IMAGE_RESULTS AS R, LATERAL FLATTEN(INPUT => R.FLAGS) AS FLAG
WHERE FLAG.VALUE:flag::VARCHAR = 'near_duplicate' AND R.S3_PATH IS NOT NULL
