"""One browser for the tests of the page. It is closed after them, as its event loop would be in the way of others."""

import pytest
from support.browser import FOREIGN_HOST, Visit, camera_flags, launched, playing
from support.scripted_server import scripted_server


@pytest.fixture(scope="package")
def player():
    """What drives browsers."""
    with playing() as running:
        yield running


@pytest.fixture(scope="package")
def browser(player, tmp_path_factory):
    """Chromium with a camera, which asks before it is used."""
    flags = camera_flags(tmp_path_factory.mktemp("camera"))
    with launched(player, *flags, f"--host-resolver-rules=MAP {FOREIGN_HOST} 127.0.0.1") as running:
        yield running


@pytest.fixture
def visit(browser):
    """A function from a server's address to a `Visit`; in the end, all of them have to have behaved."""
    visits = []

    def begin(url, *permissions, **options) -> Visit:
        context = browser.new_context(permissions=permissions, viewport={"width": 1280, "height": 800}, **options)
        context.set_default_timeout(15000)
        visits.append(Visit(context.new_page(), url))
        return visits[-1]

    yield begin
    for one in visits:
        one.page.context.close()
        one.check()


@pytest.fixture
def scripted():
    """A server whose answers the test writes."""
    with scripted_server() as running:
        yield running
