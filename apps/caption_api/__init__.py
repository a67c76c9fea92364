"""The FastAPI service: captions over HTTP, by the steps of the nightly run."""
