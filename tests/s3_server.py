"""An S3-compatible server of its own process: moto's, which counts requests and can be told to fail some.

`python tests/s3_server.py` prints its address as the first line and serves until its standard input ends. Beside the
buckets it answers `/_counted` (what was asked since the last time, as JSON) and `/_faults?share=0.05&hang=3&seed=1`.
"""

import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from urllib.parse import parse_qs

OWN = "/_"
READING = ("GET", "HEAD")


class Counted:
    """A WSGI application that counts, and fails a share of the requests on purpose.

    Writes come one after the other: moto looks whether an object is there and writes it afterwards, so that two who
    write at once, each only where nothing is, may both succeed. A real store decides that at one moment.
    """

    def __init__(self, application):
        self.application = application
        self.counts, self.lock, self.writing = Counter(), threading.Lock(), threading.Lock()
        self.share, self.hang, self.random = 0.0, 0.0, random.Random(0)

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith(OWN):
            return self._own(path, parse_qs(environ["QUERY_STRING"]), start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        with self.lock:
            self.counts[environ["REQUEST_METHOD"]] += 1
            self.counts["received"] += length
            fault = self.share and self.random.random() < self.share
            late = fault and self.hang and self.random.random() < 0.5
            self.counts["faults"] += bool(fault)
        if late:
            time.sleep(self.hang)
        if fault:
            environ["wsgi.input"].read(length)
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        with nullcontext() if environ["REQUEST_METHOD"] in READING else self.writing:
            body = b"".join(self.application(environ, start_response))
        with self.lock:
            self.counts["sent"] += len(body)
        return [body]

    def _own(self, path, query, start_response):
        with self.lock:
            if path == "/_faults":
                self.share, self.hang = float(query["share"][0]), float(query.get("hang", [0])[0])
                self.random = random.Random(int(query.get("seed", [0])[0]))
            found, self.counts = dict(self.counts), Counter()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(found).encode()]


def main():
    os.environ.update(AWS_ACCESS_KEY_ID="moto", AWS_SECRET_ACCESS_KEY="moto", MOTO_S3_CUSTOM_ENDPOINTS="")
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # connections are used again
    application = Counted(DomainDispatcherApplication(create_backend_app))
    server = make_server(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1", 0, application, threaded=True)
    server.daemon_threads = True
    print(f"http://{server.host}:{server.server_port}", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
