"""Importing this reads the towns of GeoNames, so that processes forked afterwards (tests/fork_server.py) have them."""

from __future__ import annotations

from skicyclerun.places.offline import gazetteer

gazetteer()
