"""The files of the page: small, complete, cached, and kept to their server."""

import fnmatch
import re
import tomllib

import pytest
from support.layout import ROOT
from support.server import running_server

from mlx_smolvlm.server.page import FOLDER, page_routes

PATHS = [route.path for route in page_routes()]
MAX_BYTES = 150_000


def test_the_page_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MAX_BYTES


def test_no_script_is_long():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FOLDER.glob("*.js")}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_wheels_carry_all_of_it():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = package["package-data"]["mlx_smolvlm"]
    names = [f"server/page/{path.name}" for path in FOLDER.iterdir()]
    assert [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []


def test_every_file_that_is_named_is_served():
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    named = set(re.findall(r'(?:src|href)="(page/[^"]+)"', texts["index.html"]))
    named |= {f"page/{name}" for text in texts.values() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert len(named) > 10
    assert {f"/{name}" for name in named} <= set(PATHS)
    # by the HTML or by another module: nothing is left lying about
    assert {f"page/{name}" for name in texts} - named == {"page/index.html"}


def test_ids_that_scripts_ask_for_are_in_the_html():
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    asked = {name for path in FOLDER.glob("*.js") for name in re.findall(r'\$\("([\w-]+)"\)', path.read_text("utf-8"))}
    assert asked - set(ids) == set()
    icons = {name for path in FOLDER.iterdir() for name in re.findall(r'#i-(\w+)"', path.read_text("utf-8"))}
    assert icons <= {name.removeprefix("i-") for name in ids}


def test_nothing_of_other_servers_is_named():
    for path in FOLDER.iterdir():
        found = re.findall(r"""https?://[^\s"'`)\\]+""", path.read_text(encoding="utf-8"))
        assert [url for url in found if url not in ("http://www.w3.org/2000/svg", "http://www.w3.org/2000/svg'")] == []
        assert "innerHTML" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PATHS)
def test_files_come_with_an_etag_and_with_safe_headers(server, path):
    response = server.http.get(path)
    assert response.status_code == 200 and response.content
    assert server.http.head(path).headers["content-length"] == str(len(response.content))
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy and "*" not in policy
    assert response.headers["permissions-policy"].startswith("camera=(self)")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert len(response.headers.get_list("content-security-policy")) == 1
    if path == "/page/config.json":
        return
    assert response.headers["cache-control"] == "no-cache"
    etag = response.headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = server.http.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert server.http.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_the_page_needs_no_key_and_its_questions_do(demo):
    with running_server(demo, api_key="secret") as server:
        del server.http.headers["authorization"]
        assert {server.http.get(path).status_code for path in PATHS} == {200}
        assert server.http.get("/v1/models").status_code == 401
        assert "secret" not in server.http.get("/page/config.json").text


def test_the_page_knows_the_limits(server):
    config = server.http.get("/page/config.json").json()
    assert config["max_video_bytes"] == server.engine.settings.max_video_bytes
    assert config["is_demo"] is True
