"""Exports the albums of a photo library to folders of JPEGs, and never loses its place."""

__version__ = "0.1.0"
