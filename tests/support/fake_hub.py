"""A Hub on this machine with one repository, `owner/name`: the files of a folder. As a program: prints its address."""

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "owner/name"
SHA = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(http.server.ThreadingHTTPServer):
    """Answers what `snapshot_download` asks for."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = sorted(self.server.folder.iterdir())
        if path.startswith(f"/api/models/{NAME}/tree/"):
            self._json([{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name} for f in files])
        elif path.startswith(f"/api/models/{NAME}"):
            self._json({"id": NAME, "sha": SHA, "siblings": [{"rfilename": file.name} for file in files]})
        elif path.startswith(f"/{NAME}/resolve/") and path.rpartition("/")[2] in {file.name for file in files}:
            self._send((self.server.folder / path.rpartition("/")[2]).read_bytes())
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode())

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hash(data)}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def fake_hub(folder: Path) -> Iterator[str]:
    """The address of a Hub that has the files of a folder."""
    with FakeHub(folder) as hub:
        thread = threading.Thread(target=hub.serve_forever, args=[0.01])
        thread.start()
        try:
            yield hub.address
        finally:
            hub.shutdown()
            thread.join()


if __name__ == "__main__":
    served = FakeHub(Path(sys.argv[1]))
    print(served.address, flush=True)
    served.serve_forever()
