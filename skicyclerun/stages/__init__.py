"""The stages of the pipeline: which there are and what each needs."""
