"""A stand-in of a Hugging Face hub on the loopback interface: one repository, ranges, and connections that break."""
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1 << 12     #: bytes from which a file is stored as git-lfs would, by its SHA-256


class Hub:
    """``files`` by name. ``cut`` breaks the next download of that file after so many bytes; ``lie`` sends other bytes
    of a file."""

    def __init__(self, repository="org/model", files=None, gated=False):
        self.repository, self.files, self.gated = repository, dict(files or {}), gated
        self.cut: dict[str, int] = {}
        self.lie: dict[str, int] = {}           # so many times
        self.down = self.down_after_cut = False     # answers 503
        self.gets: list[tuple[str, int]] = []   # file, first byte
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                hub.answer(self, body=False)

            def do_GET(self):
                hub.answer(self, body=True)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, http, body):
        path = http.path.partition("?")[0]
        if self.down:
            return self.send(http, 503, b"", {})
        if path.startswith("/api/models/"):
            return self.tell(http, path)
        prefix = f"/{self.repository}/resolve/{COMMIT}/"
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or name not in self.files:
            return self.send(http, 404, b"", {"X-Error-Code": "EntryNotFound"})
        self.give(http, name, self.files[name], body)

    def tell(self, http, path):
        if not path.removeprefix("/api/models/").startswith(self.repository):
            return self.send(http, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if self.gated:
            return self.send(http, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        if "/revision/" in path and not path.endswith(("/main", COMMIT)):
            return self.send(http, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name, "size": len(data), "blobId": git_sha1(data)} |
                    ({"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1}}
                     if len(data) >= LARGE else {})
                    for name, data in self.files.items()]
        self.send(http, 200, json.dumps({"id": self.repository, "sha": COMMIT, "siblings": siblings}).encode(),
                  {"Content-Type": "application/json"})

    def give(self, http, name, data, body):
        etag = hashlib.sha256(data).hexdigest() if len(data) >= LARGE else git_sha1(data)
        first = int((http.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if body:
            self.gets.append((name, first))
            if self.lie.get(name, 0):
                self.lie[name] -= 1
                data = bytes(byte ^ 1 for byte in data)
        self.send(http, 206 if first else 200, data[first:], headers, body, self.cut.pop(name, None) if body else None)

    def send(self, http, status, data, headers, body=True, cut=None):
        http.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            http.send_header(name, value)
        http.end_headers()
        if body:
            http.wfile.write(data[:cut])
            if cut is not None:
                self.down = self.down_after_cut
                http.wfile.flush()
                http.close_connection = True
                http.connection.close()


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
