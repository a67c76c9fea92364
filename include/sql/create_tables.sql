-- Purpose: the tables of Smart Image Analyzer.
-- Grain:   one row per image address and language; history: one row per replaced version of such a row.
-- Key:     (IMAGE_URI, LANGUAGE), kept by the MERGE. No PRIMARY KEY: Snowflake would not enforce it.
-- Re-run:  safe, creates only what is missing.
-- Caller:  Warehouse.create_tables (set-up; never the nightly run)
CREATE TABLE IF NOT EXISTS IMAGE_RESULTS (
    IMAGE_URI VARCHAR NOT NULL COMMENT 's3://bucket/key, or sha256:<hex> for an upload that was not archived',
    LANGUAGE VARCHAR NOT NULL COMMENT 'BCP 47 code of the caption',
    S3_PATH VARCHAR COMMENT 'Where the picture lies in S3; null if it was not archived',
    FILE_NAME VARCHAR COMMENT 'Last part of the key',
    SOURCE VARCHAR NOT NULL COMMENT 's3 (nightly run) or upload',
    ETAG VARCHAR COMMENT 'ETag of the bytes that were read, without quotes; no proof of content',
    LAST_MODIFIED_AT TIMESTAMP_TZ COMMENT 'Last-Modified of the bytes that were read, UTC',
    SIZE_BYTES NUMBER(38, 0) COMMENT 'Size of the object in bytes',
    MIME_TYPE VARCHAR COMMENT 'MIME type from the bytes, never from the name',
    EXTENSION_MATCHES BOOLEAN COMMENT 'Whether the file extension tells the truth',
    SHA256 VARCHAR COMMENT 'SHA-256 of the bytes in hex; null if they were not read whole',
    WIDTH_PX NUMBER(38, 0) COMMENT 'Width as displayed, EXIF orientation applied',
    HEIGHT_PX NUMBER(38, 0) COMMENT 'Height as displayed, EXIF orientation applied',
    FRAMES NUMBER(38, 0) COMMENT 'Number of frames or pages; 1 for a still picture',
    COLOUR_MODE VARCHAR COMMENT 'Colour mode as the decoder names it: RGB, L, CMYK, ...',
    THUMBNAIL_URI VARCHAR COMMENT 'Thumbnail inside its pack: s3://.../thumbnails.zip#<sha256>.jpg; packs may be expired',
    PREDICTED_LABEL VARCHAR COMMENT 'Best label of the hint model; may be wrong, for analysts only',
    PREDICTED_SCORE FLOAT COMMENT 'Score of that label, 0 to 1',
    HINTS VARIANT COMMENT 'Top labels with scores, best first',
    HINT_MODEL VARCHAR COMMENT 'Model that made the hints; off: switched off; missing: no model was found',
    GPT_SUMMARY VARCHAR COMMENT 'The published caption: one sentence, at most 25 words; null unless STATUS is ok',
    STATUS VARCHAR NOT NULL COMMENT 'ok, pending, needs_review, skipped or failed',
    ERROR_CODE VARCHAR COMMENT 'Why STATUS is not ok; a stable word',
    ERROR_MESSAGE VARCHAR COMMENT 'The same for people',
    REJECTED_CAPTION VARCHAR COMMENT 'Last text that broke the caption contract; never published',
    CAPTION_ORIGIN VARCHAR COMMENT 'model, reused (same bytes were captioned before) or offline (local describer)',
    CAPTION_MODEL VARCHAR COMMENT 'Model that wrote the caption',
    PROMPT_VERSION VARCHAR COMMENT 'Version of the prompt that asked for it',
    IMAGE_DETAIL VARCHAR COMMENT 'Image detail that was asked for',
    REUSED_FROM_URI VARCHAR COMMENT 'Image address whose row paid for this caption, if CAPTION_ORIGIN is reused',
    WORDS NUMBER(38, 0) COMMENT 'Words of the caption as the contract counts them',
    SENTENCES NUMBER(38, 0) COMMENT 'Sentences of the caption as the contract counts them',
    ATTEMPTS NUMBER(38, 0) COMMENT 'Requests it took, repeated and re-asked ones included',
    INPUT_TOKENS NUMBER(38, 0) COMMENT 'Input tokens of all attempts; null if the server does not report them',
    OUTPUT_TOKENS NUMBER(38, 0) COMMENT 'Output tokens of all attempts; null if the server does not report them',
    COST_USD FLOAT COMMENT 'Cost of all attempts in US dollars at the price of the day; 0 for reused and offline',
    LATENCY_S FLOAT COMMENT 'Seconds the answering requests took',
    PROPOSED_CAPTION VARCHAR COMMENT 'What the model wrote for a new picture whose text a person owns; for the reviewer',
    REVIEW_STATUS VARCHAR COMMENT 'null, approved, edited, rejected, or picture_changed: the picture of a reviewed text was replaced',
    REVIEWED_BY VARCHAR COMMENT 'Person who reviewed the row last',
    REVIEWED_AT TIMESTAMP_TZ COMMENT 'When that person did, UTC',
    ROW_HASH VARCHAR NOT NULL COMMENT 'Digest of what the pipeline says of the row; an equal one is not written again',
    RUN_ID VARCHAR NOT NULL COMMENT 'Airflow run that wrote the row last',
    CREATED_AT TIMESTAMP_TZ NOT NULL COMMENT 'When the row was first written, UTC',
    UPDATED_AT TIMESTAMP_TZ NOT NULL COMMENT 'When the row was last written, UTC'
);

CREATE TABLE IF NOT EXISTS IMAGE_RESULTS_HISTORY (
    IMAGE_URI VARCHAR NOT NULL COMMENT 'Image address of the replaced row',
    LANGUAGE VARCHAR NOT NULL COMMENT 'Language of the replaced row',
    REPLACED_AT TIMESTAMP_TZ NOT NULL COMMENT 'When it was replaced, UTC',
    REPLACED_BY_RUN_ID VARCHAR NOT NULL COMMENT 'Run that replaced it',
    OLD_ROW VARIANT NOT NULL COMMENT 'The whole row as it was, by column name'
);
