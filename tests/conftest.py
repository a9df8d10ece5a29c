"""Docker tests: skipped on a machine without an engine, never in CI."""

import os
from collections.abc import Generator

import docker
import pytest
from docker.errors import DockerException


def engine_answers() -> bool:
    try:
        client = docker.from_env(timeout=5)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except DockerException:
        return False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("docker")]
    if not marked or os.environ.get("CI") == "true" or engine_answers():
        return
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="no Docker engine answers"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.get_closest_marker("docker") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped: in CI every Docker test runs"
    return report
