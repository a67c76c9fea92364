"""Smart Image Analyzer: the core. It never imports Airflow; `docs/decisions/` says why the floors are as they are."""
