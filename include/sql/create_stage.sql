-- Purpose: this session's staging table; one JSON document a row.
-- Re-run:  safe, a temporary table of the session.
-- Caller:  Warehouse.merge, Warehouse.select_missing, Warehouse.select_receipts
CREATE OR REPLACE TEMPORARY TABLE RUN_STAGE (ROW_JSON VARCHAR)
