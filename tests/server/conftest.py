"""The server with the demo model, started once for each file."""

import pytest
from support.server import running_server


@pytest.fixture(scope="module")  # its threads would be counted by tests of other files
def server(demo):
    """A server with the default settings."""
    with running_server(demo) as running:
        yield running
