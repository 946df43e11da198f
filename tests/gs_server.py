"""Google's object store of its own process: fake-gcs-server, with a front that adds what it lacks.

`python tests/gs_server.py KEY TOKEN COMMAND...` prints its address as the first line and serves until its standard
input ends. fake-gcs-server keeps objects, generations and conditions, but knows writing by the JSON API alone, while
obstore writes by the XML API: the front hands such a PUT on as an upload. Nor does it look at credentials: the front
wants the bearer token TOKEN, or one that is signed with the private key whose public key is in the file KEY. All other
requests pass as they are.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from lab import free_port

HOP = ("connection", "transfer-encoding", "content-length", "host", "authorization", "expect")
BOUNDARY = "pickcal-boundary"


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Front(BaseHTTPRequestHandler):
    """One connection of a client; `port`, `token` and `key` are the server's."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # answers leave at once, and whole
    behind = threading.local()
    port, token, key = 0, "", None

    def log_message(self, *_):
        pass

    def allowed(self):
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given == self.token:
            return True
        signed, _, signature = given.rpartition(".")
        try:
            self.key.verify(decoded(signature), signed.encode(), PKCS1v15(), SHA256())
            return json.loads(decoded(signed.partition(".")[2]))["exp"] > time.time()
        except (InvalidSignature, ValueError, KeyError):
            return False

    def asked(self, method, path, body, headers):
        """Answer of the server behind, on a connection of this thread's own."""
        if not hasattr(self.behind, "connection"):
            self.behind.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.behind.connection.request(method, path, body, headers)
        found = self.behind.connection.getresponse()
        return found.status, found.headers, found.read()

    def answer(self, status, headers, body, length=None):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP and name.lower() != "date":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def handled(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.allowed():
            self.answer(401, [], b"<Error><Code>AuthenticationRequired</Code></Error>")
            return
        if self.command == "PUT":
            self.written(body)
            return
        kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        status, headers, content = self.asked(self.command, self.path, body, kept)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.answer(status, headers.items(), content, length)

    do_GET = do_HEAD = do_DELETE = do_POST = do_PUT = handled

    def written(self, body):
        """Write an object by the JSON API, and answer as the XML API does."""
        bucket, _, name = (unquote(part) for part in self.path.lstrip("/").partition("/"))
        what = json.dumps({"name": name}).encode()
        parts = [b"application/json\r\n\r\n" + what, b"application/octet-stream\r\n\r\n" + body]
        made = b"".join(f"--{BOUNDARY}\r\nContent-Type: ".encode() + part + b"\r\n" for part in parts)
        path = f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=multipart"
        expected = self.headers.get("x-goog-if-generation-match")
        path += f"&ifGenerationMatch={expected}" if expected is not None else ""
        headers = {"Content-Type": f"multipart/related; boundary={BOUNDARY}"}
        status, _, content = self.asked("POST", path, made + f"--{BOUNDARY}--\r\n".encode(), headers)
        if status != 200:
            code = {404: "NoSuchBucket", 412: "PreconditionFailed"}.get(status, "Failed")
            self.answer(status, [], f"<Error><Code>{code}</Code></Error>".encode())
            return
        found = json.loads(content)
        self.answer(200, [("ETag", f'"{found["etag"]}"'), ("x-goog-generation", found["generation"])], b"")


def main():
    key, Front.token, *command = sys.argv[1:]
    Front.key, Front.port = load_pem_public_key(Path(key).read_bytes()), free_port()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    server.daemon_threads = True
    command += ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(Front.port)]
    command += ["-public-host", f"127.0.0.1:{Front.port}", "-log-level", "error"]
    behind = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until_it_answers(behind)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)

    def ended():
        sys.stdin.read()
        behind.kill()
        behind.wait()
        os._exit(0)

    threading.Thread(target=ended, daemon=True).start()
    server.serve_forever()


def until_it_answers(behind):
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", Front.port, timeout=5)
            connection.request("GET", "/storage/v1/b?project=p")
            connection.getresponse().read()
            return
        except OSError:
            if behind.poll() is not None:
                raise
            time.sleep(0.05)
    raise TimeoutError("fake-gcs-server does not answer")


if __name__ == "__main__":
    main()
