"""One module for each outside system. Heavy imports are inside functions; each maps its library's errors in one place."""
