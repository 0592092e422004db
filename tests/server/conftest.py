"""The server with the demo model, started once."""

import pytest
from support.server import running_server


@pytest.fixture(scope="session")
def server(demo):
    """A server with the default settings."""
    with running_server(demo) as running:
        yield running
