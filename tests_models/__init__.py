"""Tests that need torch and diffusers: `make test-models`."""
