"""An executable stand-in for macOS' `osascript`, played from a scenario file. See README.md beside this."""
