"""One run, from its request to its report: session, pipeline, lock, log, signals."""
