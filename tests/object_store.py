"""A running S3-compatible server for tests, with buckets of their own."""

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


class S3:
    """The server: buckets, whole folders, and what it was asked.

    `before` are words that go before the command, as of `Hosts.on`, `host` the address it listens on.
    """

    def __init__(self, before=(), host="127.0.0.1"):
        self.process = subprocess.Popen(
            [*before, sys.executable, str(Path(__file__).with_name("s3_server.py")), host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self.process.stdout.readline().strip()
        self.buckets = 0

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)

    def bucket(self) -> Url:
        """Make a bucket, and give its URL."""
        self.buckets += 1
        name = f"bucket-{self.buckets}"
        request = urllib.request.Request(f"{self.address}/{name}", method="PUT")
        request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request, timeout=30).read()
        return place(f"s3://{name}")

    def send(self, folder: Path, url: Url) -> None:
        """Copy all files of a folder to a place."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                objects.write(url / file.relative_to(folder).as_posix(), file.read_bytes())

    def content(self, url: Url) -> dict[str, bytes]:
        """All objects within a place."""
        client = objects.client_of(url)
        return {name: bytes(obstore.get(client, name).bytes()) for name in objects.listed(url)}

    def counted(self) -> dict[str, int]:
        """What was asked since the last call."""
        return self._own("_counted")

    def faults(self, share: float, hang: float = 0.0, seed: int = 0) -> None:
        """Answer a share of the requests with 503, half of them only after so many seconds."""
        self._own(f"_faults?share={share}&hang={hang}&seed={seed}")

    def _own(self, what):
        with urllib.request.urlopen(f"{self.address}/{what}", timeout=30) as answer:
            return json.load(answer)
