"""Trains hint models on one's own classes. Needs what `requirements-train.txt` names; the nightly run does not import it."""
