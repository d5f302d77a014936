"""What tests of the run level share."""

import pytest


@pytest.fixture(scope="session")
def runs(maker):
    """The functions that make tables and images of runs."""
    return maker("runs_by_code")
