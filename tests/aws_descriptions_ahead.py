"""Importing this reads what clients of boto3 need of its files, and imports what they import late."""

from __future__ import annotations

import boto3

import tests.aws_descriptions  # noqa: F401  (before the first session)

_session = boto3.session.Session(aws_access_key_id="a", aws_secret_access_key="a", region_name="us-east-1")
for _name in ("s3", "cloudfront"):
    _session.client(_name)
