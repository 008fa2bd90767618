"""Once this is imported, all sessions of boto3 in the process share what they read of its files.

Each would parse megabytes of JSON for its clients, a third of a second of work, and every run of a test has a session
of its own. For processes that fork (tests/fork_server.py), tests/aws_descriptions_ahead.py has them read before.
"""

from __future__ import annotations

import functools
from typing import Any

import botocore.loaders
import botocore.session


@functools.cache
def shared_loader(search_path: str | None = None) -> Any:
    return botocore.loaders.create_loader(search_path)


botocore.session.create_loader = shared_loader
