"""Fixtures of object stores: one of every kind, each started once and only if a test asks for it."""

import pytest
from emulators import Absent


def running(kind, folder):
    import cloud_stores

    try:
        return getattr(cloud_stores, kind)(folder)
    except Absent as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def _azure_server(tmp_path_factory):
    server = running("Azure", tmp_path_factory.mktemp("azure"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def _google_server(tmp_path_factory):
    server = running("Google", tmp_path_factory.mktemp("google"))
    yield server
    server.close()


@pytest.fixture(params=["s3", "az", "gs"])
def store(request, monkeypatch):
    """A running store of every kind, with its address and credentials in the environment."""
    if request.param == "s3":
        return request.getfixturevalue("s3")
    server = request.getfixturevalue({"az": "_azure_server", "gs": "_google_server"}[request.param])
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server
