-- Purpose: published captions: what most people want.
-- Grain:   one row per image address and language.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW IMAGE_CAPTIONS (
    IMAGE_URI COMMENT 's3://bucket/key, or sha256:<hex> for an upload that was not archived',
    LANGUAGE COMMENT 'BCP 47 code of the caption',
    CAPTION COMMENT 'One sentence of at most 25 words; empty if the picture is decorative',
    IS_DECORATIVE COMMENT 'Whether the picture needs no caption',
    DECORATIVE_REASON COMMENT 'Why it needs none',
    WRITTEN_BY COMMENT 'model, person (wrote or decided on it) or offline (local describer, a stand-in)',
    FILE_NAME COMMENT 'Last part of the key',
    S3_PATH COMMENT 'Where the picture lies in S3; null if it was not archived',
    SHA256 COMMENT 'SHA-256 of the bytes in hex',
    MIME_TYPE COMMENT 'MIME type from the bytes',
    WIDTH_PX COMMENT 'Width as displayed',
    HEIGHT_PX COMMENT 'Height as displayed',
    CONTAINS_PERSON COMMENT 'Whether the model saw a person; null if it did not say',
    VISIBLE_TEXT COMMENT 'Whether the model saw text in the picture; null if it did not say',
    REVIEWED_AT COMMENT 'When a person approved or edited it, UTC; null if nobody did',
    UPDATED_AT COMMENT 'When the row was last written, UTC'
)
COPY GRANTS
COMMENT = 'Published captions, one row per image and language'
AS
SELECT
    IMAGE_URI,
    LANGUAGE,
    GPT_SUMMARY,
    STATUS = 'decorative',
    DECORATIVE_REASON,
    CASE
        WHEN REVIEW_STATUS IS NOT NULL OR CAPTION_ORIGIN = 'person' THEN 'person'
        WHEN CAPTION_ORIGIN = 'offline' THEN 'offline'
        ELSE 'model'
    END,
    FILE_NAME,
    S3_PATH,
    SHA256,
    MIME_TYPE,
    WIDTH_PX,
    HEIGHT_PX,
    CONTAINS_PERSON,
    VISIBLE_TEXT,
    REVIEWED_AT,
    UPDATED_AT
FROM IMAGE_RESULTS
WHERE STATUS IN ('ok', 'decorative')
