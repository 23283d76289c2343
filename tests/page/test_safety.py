"""Safe on a home network: each sentence of docs/page.md on safety has a test that tries to break it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest

# First of all: without the extra [page] it skips this file.
from support.page_client import Client, page_request  # isort: split

from sharpzo_edge.page.names import spelt
from sharpzo_edge.page.safety import EVERYBODYS_TRIES, MOST_FORM_BYTES, TRIES, Tries, is_loopback, names_of
from sharpzo_edge.page.server import Address
from sharpzo_edge.page.state import door_of
from sharpzo_edge.requests import PageRequest

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def locked(pictures: Path):
    with Client(page_request(pictures), token=TOKEN) as found:
        yield found


def entered(client: Client) -> Client:
    answer = client.post("/enter", {"token": TOKEN})
    client.cookie = answer.headers["set-cookie"].split(";")[0]
    return client


# Who may come in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_needs_no_token(host):
    assert is_loopback(host)
    assert door_of(PageRequest(host=host)).token is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "board.local"])
def test_a_network_demands_a_token(host):
    one, two = door_of(PageRequest(host=host)).token, door_of(PageRequest(host=host)).token
    assert one and two and one != two and len(one) == 32


PATHS = ["/", "/tune", "/result", "/try", "/contents", "/tiles?class=cat", "/thumbnail?of=cat/0.png"]


@pytest.mark.parametrize("path", [*PATHS, "/events", "/view?of=cat/0.png", "/report", "/nothing"])
def test_without_the_token_nothing_is_shown(locked, path):
    assert locked.get(path).status == 401
    page = locked.get(path, accept="text/html")
    assert (page.status, page.headers["location"]) == (303, "/enter")


def test_without_the_token_nothing_is_changed(locked, pictures):
    for path in ("/move", "/put-aside", "/classes", "/class", "/start", "/stop", "/plan"):
        fields = {"pictures": "cat/0.png", "to": "hot_dog", "name": "dog", "class": "cat"}
        assert locked.post(path, fields).status == 401
    assert locked.send("/pictures?to=cat", [("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99))]).status == 401
    assert len(list((pictures / "cat").iterdir())) == 3


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "é", "\udcff"])
def test_another_token_does_not_open(locked, token):
    answer = locked.post("/enter", {"token": token.encode(errors="replace").decode()})
    assert answer.status == 403 and "set-cookie" not in answer.headers
    locked.cookie = f"sharpzo-8750={token.encode(errors='replace').decode()}"
    assert locked.get("/").status == 401


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(locked):
    answer = locked.post("/enter", {"token": TOKEN})
    assert answer.status == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert entered(locked).get("/").status == 200


def test_the_token_is_printed_in_the_fragment():
    """No browser sends a fragment, so that it is in no log and no Referer."""
    address = Address(f"http://192.168.1.5:8750/enter#{TOKEN}", TOKEN)
    assert address.to_json() == {"url": address.url, "token": TOKEN}
    assert re.fullmatch(r"[█▀▄ \n]+", address.qr_code())


def test_the_token_is_compared_in_constant_time(locked, monkeypatch):
    compared = []
    monkeypatch.setattr(
        "sharpzo_edge.page.safety.hmac.compare_digest", lambda a, b: bool(compared.append((a, b)))
    )
    locked.post("/enter", {"token": TOKEN})
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


def test_wrong_tokens_are_counted(locked):
    for _ in range(TRIES):
        assert locked.post("/enter", {"token": "wrong"}).status == 403
    assert locked.post("/enter", {"token": TOKEN}).status == 429  # the right one, too
    locked.address = "192.168.1.9"
    assert locked.post("/enter", {"token": TOKEN}).status == 303


def test_wrong_tokens_are_forgotten_after_a_minute():
    clock = [0.0]
    tries = Tries(now=lambda: clock[0])
    for i in range(EVERYBODYS_TRIES):
        assert not tries.are_used_up("new")
        tries.add(f"10.0.{i}.1")
    assert tries.are_used_up("new")  # many addresses do not help
    clock[0] = 61
    assert not tries.are_used_up("new") and not tries.wrong


# From where -----------------------------------------------------------------------------------------


FOREIGN = [
    "evil.example",
    "evil.example:8750",
    "127.0.0.1.evil.example",
    "",
    "192.168.1.77",
    "[::2]",
    "[",
    "a@b",
]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_page_by_another_name_is_refused(client, host):
    """DNS rebinding: a name of somebody else's that leads here."""
    assert client.get("/", host=host).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8750", "localhost:8750", "LOCALHOST", "localhost.", "[::1]:1"])
def test_this_machine_has_its_names(client, host):
    assert client.get("/", host=host).status == 200


def test_a_name_can_be_allowed(pictures):
    with Client(page_request(pictures), allowed=["board.example"]) as client:
        assert client.get("/", host="board.example:8750").status == 200


def test_on_a_network_the_own_name_is_allowed(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Board.lan")
    assert names_of("0.0.0.0", ()) >= {"board", "board.lan", "board.local"}
    assert "board" not in names_of("127.0.0.1", ())


ORIGINS = [
    "http://evil.example",
    "null",
    "http://127.0.0.1:9999",
    "http://localhost:8750",
    "",
    "http://127.0.0.1",
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_another_page_cannot_post(client, pictures, origin):
    answer = client.post("/move", {"pictures": "cat/0.png", "to": "hot_dog"}, origin=origin)
    assert answer.status == 403
    assert (pictures / "cat" / "0.png").exists()


def test_a_post_without_an_origin_is_refused(client):
    """But where the browser says by another header that the page itself sent it."""
    ask = {"content_type": "application/x-www-form-urlencoded"}
    assert client.ask("POST", "/stop", **ask).status == 403
    assert client.ask("POST", "/stop", sec_fetch_site="cross-site", **ask).status == 403
    assert client.ask("POST", "/stop", sec_fetch_site="same-origin", **ask).status == 200


def test_another_page_cannot_show_our_pictures(client):
    """Nor learn whether there is one."""
    for site in ("cross-site", "same-site"):
        answer = client.get("/thumbnail?of=cat/0.png", sec_fetch_site=site, sec_fetch_mode="no-cors")
        assert answer.status == 403
    assert client.get("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO"])
def test_other_methods_do_nothing(client, method):
    origin = {"origin": f"http://{client.host}"}
    assert client.ask(method, "/pictures?to=cat", **origin).status == 405


# What goes out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/tune", "/result", "/try", "/static/page.js", "/no", "/contents"])
def test_every_answer_has_the_strict_policy(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_policy_is_kept_by_the_pages_themselves(client):
    """No inline style or script, and nothing from another host."""
    for path in ("/", "/tune", "/result", "/try", "/tiles?class=cat"):
        html = client.get(path).text
        assert not re.search(r"\sstyle=|\son\w+=|javascript:|<style|https?://", html)
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))


def test_names_are_escaped_everywhere(client, pictures):
    evil = "<img src=x onerror=alert(1)>&'\""
    (pictures / evil).mkdir()
    (pictures / evil / f"{evil}.png").write_bytes((pictures / "cat" / "0.png").read_bytes())
    client.post("/class", {"class": "cat", "words": evil})
    for path in ("/", f"/tiles?class={quote(spelt(evil))}"):
        answer = client.get(path)
        assert answer.status == 200
        assert "<img src=x" not in answer.text and "&lt;img src=x" in answer.text


@pytest.mark.parametrize("path", ["../routes.py", "%2e%2e/routes.py", "..%2froutes.py", "/etc/passwd", "\0"])
def test_static_files_are_ours_alone(client, path):
    assert client.get(f"/static/{path}").status == 404


# How much ---------------------------------------------------------------------------------------------


def test_a_form_has_a_largest_size(client):
    assert client.post("/move", {"pictures": "x" * (MOST_FORM_BYTES + 1)}).status == 413


def test_a_length_that_is_a_lie_does_not_help(client):
    body = b"pictures=" + b"x" * (MOST_FORM_BYTES + 1)
    answer = client.ask(
        "POST",
        "/move",
        body,
        content_length="10",
        origin=f"http://{client.host}",
        content_type="application/x-www-form-urlencoded",
    )
    assert answer.status in (400, 413, 499)


@pytest.mark.parametrize("length", ["-1", "x", "1e9", "99999999999999", "²"])
def test_a_length_that_is_none_is_refused(client, length):
    answer = client.ask("POST", "/move", content_length=length, origin=f"http://{client.host}")
    assert answer.status == 413


def test_a_defect_of_ours_is_a_sentence(client, monkeypatch):
    monkeypatch.setattr(client.page.thumbnails, "reason", lambda key: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.get("/tiles?class=cat")
