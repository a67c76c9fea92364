-- Purpose: rows for a reviewer, of one queue.
-- Grain:   one row per image address and language.
-- Binds:   queue (waiting: needs a person; flagged: published, but looks odd; published: any that nobody looked at; rejected: waits
--          for somebody's words), language (empty: any), row_limit
-- Order:   oldest first; published ones by chance, so that all have the same chance to be looked at.
-- Caller:  ReviewDesk.select_queue
SELECT * -- noqa: AM04
FROM IMAGE_RESULTS
WHERE
    (%(language)s = '' OR LANGUAGE = %(language)s)
    AND (
        (
            %(queue)s = 'waiting' AND STATUS = 'needs_review'
            AND COALESCE(REVIEW_STATUS, 'picture_changed') = 'picture_changed'
        )
        OR (%(queue)s = 'flagged' AND STATUS IN ('ok', 'decorative') AND REVIEW_STATUS IS NULL AND FLAGS IS NOT NULL)
        OR (%(queue)s = 'published' AND STATUS IN ('ok', 'decorative') AND REVIEW_STATUS IS NULL)
        OR (%(queue)s = 'rejected' AND REVIEW_STATUS = 'rejected')
    )
ORDER BY IFF(%(queue)s = 'published', RANDOM(), NULL) ASC, UPDATED_AT ASC, IMAGE_URI ASC, LANGUAGE ASC
LIMIT %(row_limit)s
