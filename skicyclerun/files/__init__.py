"""Names and durable writes: atomic files, album folders, naming, and the fault points of the crash campaign."""
