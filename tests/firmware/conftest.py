"""Fixtures: the firmware, compiled once per test run, and loaded anew for every test."""
import pytest

from tests.firmware import library


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    return library.build(tmp_path_factory.mktemp("firmware"))


@pytest.fixture
def firmware(built, tmp_path):
    return library.load(built, tmp_path / "firmware.so")
