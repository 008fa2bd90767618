"""A real S3 (and CloudFront) on the loopback, in a process of its own: moto's server, and buckets to look into.

Between it and the program stands a proxy (`bucket_proxy.py`), which sees every request and can play a bad line.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config

import tests.aws_descriptions  # noqa: F401  (sessions share what they read)
from tests.bucket_proxy import Asked, Proxy, proxy_before

#: Nobody's; moto asks for some, and looks at none.
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "no-secret-at-all",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_SERVE: Final = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@dataclass
class Service:
    """The server and the proxy before it."""

    address: str
    """Of the server itself, for looking."""
    proxy: Proxy
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, name: str) -> Any:
        """One that goes past the proxy."""
        if name not in self._clients:
            self._clients[name] = boto3.session.Session(
                aws_access_key_id="tests", aws_secret_access_key="tests", region_name="us-east-1"
            ).client(name, endpoint_url=self.address, config=Config(s3={"addressing_style": "path"}))
        return self._clients[name]

    def bucket(self) -> BucketThere:
        """A new, empty one."""
        name = f"pictures-{next(self.numbers)}"
        client = self.client("s3")
        client.create_bucket(Bucket=name)
        return BucketThere(self, name, client)


@dataclass
class BucketThere:
    """A bucket, as somebody with all rights sees it."""

    service: Service
    name: str
    client: Any

    @property
    def section(self) -> dict[str, Any]:
        """Of a configuration that uploads here what is exported, quickly."""
        return {
            "bucket_name": self.name,
            "bucket_prefix": "site",
            "endpoint_url": self.service.proxy.address,
            "source_folder": "apple_photos_export",
            "workers": 2,
            "retries": {"backoff_seconds": 0},
        }

    def keys(self) -> list[str]:
        return sorted(self.objects())

    def objects(self) -> dict[str, bytes]:
        """All bytes by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return {key: self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys}

    def index(self, key: str) -> Any:
        return json.loads(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def head(self, key: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.client.head_object(Bucket=self.name, Key=key, ChecksumMode="ENABLED")
        return found

    def put(self, key: str, data: bytes = b"somebody else's", **further: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data, **further)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def unfinished(self) -> list[str]:
        """Keys of uploads in parts that nobody has ended."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    def whole(self) -> dict[str, tuple[bytes, str, str, str, str]]:
        """All that an object is, by key, without its times."""
        found = {}
        for key, data in self.objects().items():
            head = self.head(key)
            mark = json.dumps(head["Metadata"], sort_keys=True)
            found[key] = (data, head["ContentType"], head.get("CacheControl", ""), mark, head.get("ChecksumSHA256", ""))
        return found

    def put_back(self, objects: Mapping[str, tuple[bytes, str, str, str, str]]) -> None:
        """Make the bucket what `whole` said."""
        for upload in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ()):
            self.client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
        for key in self.keys():
            self.remove(key)
        for key, (data, kind, cache, mark, checksum) in objects.items():
            given = {"ContentType": kind, "CacheControl": cache, "ChecksumSHA256": checksum}
            sent = {name: value for name, value in given.items() if value}
            algorithm = {"ChecksumAlgorithm": "SHA256"} if checksum else {}
            self.client.put_object(Bucket=self.name, Key=key, Body=data, Metadata=json.loads(mark), **sent, **algorithm)


def new_distribution(service: Service) -> str:
    """A distribution of CloudFront; its id."""
    origin = {"Id": "o", "DomainName": "x.s3.amazonaws.com", "S3OriginConfig": {"OriginAccessIdentity": ""}}
    answer = service.client("cloudfront").create_distribution(
        DistributionConfig={
            "CallerReference": f"tests-{next(service.numbers)}",
            "Comment": "",
            "Enabled": True,
            "Origins": {"Quantity": 1, "Items": [origin]},
            "DefaultCacheBehavior": {
                "TargetOriginId": "o",
                "ViewerProtocolPolicy": "allow-all",
                "MinTTL": 0,
                "ForwardedValues": {"QueryString": False, "Cookies": {"Forward": "none"}},
            },
        }
    )
    return str(answer["Distribution"]["Id"])


def assert_nothing_public(asked: list[Asked]) -> None:
    """No request of any test has asked for an ACL or a policy."""
    for each in asked:
        assert not [name for name in each.headers if name.startswith(("x-amz-acl", "x-amz-grant"))], each
        assert not {"acl", "policy", "publicAccessBlock", "website"} & each.query.keys(), each


@contextmanager
def running_service() -> Iterator[Service]:
    """Started, and ended with the block."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server.stdin, server.stdout:
        port = int(server.stdout.readline())
        with proxy_before("127.0.0.1", port) as proxy:
            yield Service(f"http://127.0.0.1:{port}", proxy)
        server.stdin.close()
        server.wait(30)
