"""Azure's and Google's object stores for tests, by emulators: what is real in them, and what is not, stands there."""

import base64
import email.utils
import hashlib
import hmac
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from emulators import azurite, fake_gcs
from object_store import Store

ACCOUNT, ACCOUNT_KEY = "lab", base64.b64encode(b"planted-secret-of-the-azure-account").decode()
TOKEN = "planted-bearer-token-of-google"


class Azure(Store):
    """Azurite, Microsoft's own emulator: the protocol, conditions and signatures of Azure, objects in memory."""

    scheme, planted = "az", (ACCOUNT_KEY,)

    def __init__(self, _folder: Path):
        options = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--blobHost", "127.0.0.1"]
        super().__init__(
            [*azurite(), *options, "--blobPort", "0"],
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"},
        )
        self.environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": self.address,
            "AZURE_ALLOW_HTTP": "true",
        }

    def told_address(self):
        line = next(line for line in self.process.stdout if "successfully listens" in line)
        return f"{line.split()[-1]}/{ACCOUNT}"

    def make_bucket(self, name):
        date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
        what = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        signed = f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:{version}\n{what}"
        signature = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
        headers = {
            "x-ms-date": date,
            "x-ms-version": version,
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
        }
        url = f"{self.address}/{name}?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=30).read()

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Google(Store):
    """fake-gcs-server behind a front, see `gs_server`: generations, conditions, lists and reads are its own."""

    scheme, planted = "gs", (TOKEN,)

    def __init__(self, folder: Path):
        key = rsa.generate_private_key(65537, 2048)
        public = folder / "public.pem"
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        self.account = {
            "type": "service_account",
            "client_email": "someone@project.iam.gserviceaccount.com",
            "private_key_id": "0",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }
        super().__init__([sys.executable, Path(__file__).with_name("gs_server.py"), public, TOKEN, *fake_gcs()])
        self.environment = {
            "GOOGLE_BEARER_TOKEN": TOKEN,
            "GOOGLE_BASE_URL": self.address,
            "GOOGLE_ALLOW_HTTP": "true",
        }

    def make_bucket(self, name):
        request = urllib.request.Request(f"{self.address}/storage/v1/b?project=p", json.dumps({"name": name}).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {TOKEN}")
        urllib.request.urlopen(request, timeout=30).read()
