#!/bin/sh
# What a person with Photos types once, so that docs/photos-app.md can say what has been seen on a Mac:
#   sh scripts/check-on-a-mac.sh
# It asks before it does anything; scripts/check_on_a_mac.py says what it does.
set -eu
cd "$(dirname "$0")/.."
if [ "$(uname)" != Darwin ]; then
  echo "This is for a Mac with Photos; here nothing was done." >&2
  exit 2
fi
make .venv/.installed
exec .venv/bin/python scripts/check_on_a_mac.py "$@"
