"""The page answers its own address with its token only, whatever is sent."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.labelling import Session
from resurgence_harness.labelling.page import Server
from tests.labelling.sets import drawn


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A page with five pictures."""
    with Server(Session(drawn(tmp_path, 5), "editor")) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
        yield serving
        serving.shutdown()


def ask(server: Server, method: str, path: str, content: object = None, **headers: str) -> tuple[int, bytes]:
    """Status and content of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    body = None if content is None else json.dumps(content)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_what_the_page_may_do(server: Server) -> None:
    """The page by its address; state, pictures and answers with the token."""
    own = {"X_Token": server.token, "Origin": f"http://127.0.0.1:{server.server_port}"}
    assert ask(server, "GET", f"/?token={server.token}")[0] == 200
    assert ask(server, "GET", "/picture/0", X_Token=server.token)[1].startswith(b"\x89PNG")
    assert ask(server, "GET", "/reference/1", X_Token=server.token)[0] == 200
    status, told = ask(server, "POST", "/answer", {"place": 0, "label": "red"}, **own)
    assert status == 200 and json.loads(told)["done"] == 1
    assert json.loads(ask(server, "POST", "/undo", {}, **own)[1])["done"] == 0


def test_who_is_refused(server: Server) -> None:
    """No token, another one, another host, another origin, an answer without an origin."""
    own = f"http://127.0.0.1:{server.server_port}"
    for path in ("/", "/?token=", "/?token=x", "/state", "/picture/0", "/reference/1"):
        assert ask(server, "GET", path)[0] == 403, path
    assert ask(server, "GET", "/state", X_Token=server.token, Host="evil.example")[0] == 403
    assert ask(server, "GET", "/state", X_Token=server.token, Origin="http://evil.example")[0] == 403
    answer = {"place": 0, "label": "red"}
    for headers in (
        {"X_Token": server.token},
        {"X_Token": server.token, "Origin": "null"},
        {"X_Token": server.token, "Origin": "http://127.0.0.1:1"},
        {"Origin": own},
        {"X_Token": "é", "Origin": own},
    ):
        assert ask(server, "POST", "/answer", answer, **headers)[0] == 403, headers
    assert not server.session.file.labels and not server.session.file.path.exists()


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"place": "0", "label": "red"}, {"place": 99, "label": "red"}, {"place": -1, "label": "red"}],
)
def test_what_is_no_answer(server: Server, content: object) -> None:
    """A mistake is a status, and nothing is kept."""
    own = {"X_Token": server.token, "Origin": f"http://127.0.0.1:{server.server_port}"}
    assert ask(server, "POST", "/answer", content, **own)[0] == 400
    assert ask(server, "POST", "/answer", {"place": 0, "label": "blue"}, **own)[0] == 507
    for path in ("/picture/5", "/picture/-1", "/picture/../0001.png", "/pictures.json", "/reference/9"):
        assert ask(server, "GET", path, X_Token=server.token)[0] == 404
    assert not server.session.file.labels


def test_a_port_in_use_is_one_sentence(server: Server) -> None:
    """And so is one that does not exist."""
    for port in (server.server_port, 70_000):
        with pytest.raises(UserError, match=f"Port {port} cannot be used"):
            Server(server.session, port)
