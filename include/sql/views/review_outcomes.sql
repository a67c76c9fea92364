-- Purpose: what people decided on captions, and how far their words are from those of the model.
-- Grain:   one row per day (UTC), model and language; copies of the same bytes are not counted.
-- Re-run:  safe, replaces the view and keeps its grants.
-- Caller:  Warehouse.create_tables
CREATE OR REPLACE VIEW REVIEW_OUTCOMES (
    DAY COMMENT 'Day of the decisions, UTC',
    CAPTION_MODEL COMMENT 'Model that wrote the texts that were shown',
    LANGUAGE COMMENT 'BCP 47 code',
    DECISIONS COMMENT 'Decisions of that day',
    APPROVED COMMENT 'Texts published as they were shown',
    EDITED COMMENT 'Texts that a person changed or wrote',
    REJECTED COMMENT 'Texts taken down, or kept down',
    DECORATIVE COMMENT 'Pictures that need no caption',
    ACCEPTANCE_RATE COMMENT 'APPROVED / DECISIONS, 0 to 1',
    MEAN_EDIT_DISTANCE COMMENT 'Mean number of characters changed in edited texts (Levenshtein); null if none',
    MEAN_EDIT_SHARE COMMENT 'The same as a share of the longer text, 0 to 1',
    OVERRULED COMMENT 'Texts published although a rule of wording spoke against them'
)
COPY GRANTS
COMMENT = 'Decisions of reviewers per day, model and language'
AS
SELECT
    REVIEWED_AT::DATE,
    CAPTION_MODEL,
    LANGUAGE,
    COUNT(*),
    COUNT_IF(DECISION = 'approved'),
    COUNT_IF(DECISION = 'edited'),
    COUNT_IF(DECISION = 'rejected'),
    COUNT_IF(DECISION = 'decorative'),
    COUNT_IF(DECISION = 'approved') / COUNT(*)::FLOAT,
    AVG(IFF(DECISION = 'edited' AND TEXT_BEFORE <> '', EDITDISTANCE(TEXT_BEFORE, TEXT_AFTER), NULL)),
    AVG(
        IFF(
            DECISION = 'edited' AND TEXT_BEFORE <> '',
            EDITDISTANCE(TEXT_BEFORE, TEXT_AFTER) / GREATEST(LENGTH(TEXT_BEFORE), LENGTH(TEXT_AFTER))::FLOAT,
            NULL
        )
    ),
    COUNT_IF(OVERRULED IS NOT NULL)
FROM IMAGE_REVIEWS
WHERE NOT IS_COPY
GROUP BY REVIEWED_AT::DATE, CAPTION_MODEL, LANGUAGE
