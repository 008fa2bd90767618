"""The second place for archives that a configuration names: a folder or a bucket."""

from __future__ import annotations

import os

from skicyclerun.archive.remote import Remote
from skicyclerun.settings.archive_url import archive_url
from skicyclerun.settings.models import CleanupSettings


def open_remote(cleanup: CleanupSettings) -> Remote | None:
    """None where `cleanup.remote` names none. Asks nothing of the place; what a bucket needs is imported with it."""
    if cleanup.remote is None:
        return None
    place = archive_url(cleanup.remote, os.environ)
    if place.folder is not None:
        from skicyclerun.archive.remote_folder import FolderRemote

        return FolderRemote(place.folder)
    from skicyclerun.archive.remote_bucket import BucketRemote

    service = cleanup.remote_service
    return BucketRemote(
        place,
        endpoint_url=service.endpoint_url,
        aws_profile=service.aws_profile,
        region=service.region,
        seconds=cleanup.remote_timeout,
    )
