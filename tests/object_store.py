"""Running object stores for tests, with buckets of their own: what all kinds share, and the S3-compatible one."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import obstore

from pickcal.stores import objects
from pickcal.stores.places import Url, place

KEY, SECRET = "AKIAPICKCALTEST", "planted-secret-of-the-object-store"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


class Store:
    """A server that listens at `address`; its process ends when its standard input does, or when it is told to.

    Kinds say how they are started, in `environment` what a process needs to reach them, and in `planted` which of that
    is secret.
    """

    scheme = ""
    environment: dict[str, str]
    planted: tuple[str, ...]

    def __init__(self, command, env=None):
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.address = self.told_address()
        self.buckets = 0

    def told_address(self):
        """Address that the server prints as its first line."""
        return self.process.stdout.readline().strip()

    def make_bucket(self, name) -> None:
        raise NotImplementedError

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)

    def bucket(self) -> Url:
        """Make a bucket, and give its URL."""
        self.buckets += 1
        name = f"bucket-{self.buckets}"
        self.make_bucket(name)
        return place(f"{self.scheme}://{name}")

    def send(self, folder: Path, url: Url) -> None:
        """Copy all files of a folder to a place."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                objects.write(url / file.relative_to(folder).as_posix(), file.read_bytes())

    def content(self, url: Url) -> dict[str, bytes]:
        """All objects within a place."""
        client = objects.client_of(url)
        return {name: bytes(obstore.get(client, name).bytes()) for name in objects.listed(url)}


class S3(Store):
    """Moto's S3, which counts what it is asked and fails when it is told to.

    `before` are words that go before the command, as of `Hosts.on`, `host` the address it listens on.
    """

    scheme, planted = "s3", (KEY, SECRET)

    def __init__(self, before=(), host="127.0.0.1"):
        super().__init__([*before, sys.executable, Path(__file__).with_name("s3_server.py"), host])
        self.environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.address}

    def make_bucket(self, name):
        request = urllib.request.Request(f"{self.address}/{name}", method="PUT")
        request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request, timeout=30).read()

    def counted(self) -> dict[str, int]:
        """What was asked since the last call."""
        return self._own("_counted")

    def faults(self, share: float, hang: float = 0.0, seed: int = 0) -> None:
        """Answer a share of the requests with 503, half of them only after so many seconds."""
        self._own(f"_faults?share={share}&hang={hang}&seed={seed}")

    def _own(self, what):
        with urllib.request.urlopen(f"{self.address}/{what}", timeout=30) as answer:
            return json.load(answer)
