"""The configuration: its shape (`models`), the file, placeholders, checks; `load.load_settings` is the way in."""
