"""One function for each step of the pipeline: addresses in, rows through the work area, a report out."""
