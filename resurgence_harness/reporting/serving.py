"""Serves a report on localhost: pages that fetch their data cannot be opened as files."""

from __future__ import annotations

import functools
import http.server
from contextlib import suppress
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for all files of a page

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server for this folder on 127.0.0.1; port 0 takes any free port. UserError if the port cannot be used."""
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Quiet, directory=str(folder)))
    except OverflowError as error:
        raise UserError(sentence(f"There is no port {port}.", do="Give one from 0 to 65535.")) from error
    except OSError as error:
        raise UserError(
            sentence(
                f"Port {port} cannot be used.",
                reason=error.strerror or error,
                do="Choose another with --port, or any free one with --port 0.",
            )
        ) from error


def serve_until_stopped(page: Path, port: int) -> None:
    """Serve a report's folder until Ctrl-C; prints its URL, and opens a browser if there is one."""
    import webbrowser

    with server(page.parent, port) as serving:
        name = "" if page.name == "index.html" else page.name
        address = f"http://127.0.0.1:{serving.server_port}/{name}"
        print(f"{address}  (Ctrl-C to stop)", flush=True)
        webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            serving.serve_forever()
