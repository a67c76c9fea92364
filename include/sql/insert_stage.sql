-- Purpose: a few documents for this session's staging table; the connector joins them into one statement.
-- Binds:   row_json
-- Re-run:  safe, RUN_STAGE is a temporary table of the session.
-- Caller:  as create_stage.sql, instead of a file
INSERT INTO RUN_STAGE (ROW_JSON) VALUES (%(row_json)s)
