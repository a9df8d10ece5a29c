"""Real tiers as processes."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from runner.errors import LaunchError, TierCallError
from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits
from runner.launchers.owner import command_line, start_of
from runner.launchers.process import ProcessLauncher


@pytest.fixture(scope="module")
def deployment(tiers: list[TierLimits], links: list[LinkLimits]) -> Iterator[Deployment]:
    with ProcessLauncher().launch(tiers, links, {}) as running:
        for name, tier in running.tiers.items():
            tier.call({"cmd": "load", "parts": [], "routes": running.routes(name)}, deadline_s=20)
        yield running


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_links_are_paced_in_both_directions(
    deployment: Deployment, links: list[LinkLimits], probe: Callable[..., dict[str, Any]]
) -> None:
    for link in links:
        url = deployment.url(link.upstream, link.downstream)
        result = deployment.tiers[link.upstream].call(probe(link, url), deadline_s=60)
        for direction in ("up", "down"):
            assert result[direction]["rate_bit_per_s"] == pytest.approx(link.up_bit_per_s, rel=0.1)


def test_a_delay_is_made_and_the_rate_kept(probe: Callable[..., dict[str, Any]]) -> None:
    tiers = [TierLimits(name, 1, 1 << 28, 1) for name in ("mobile", "edge")]
    link = LinkLimits("mobile-edge", "mobile", "edge", 20_000_000, 20_000_000, delay_s=0.03)
    with ProcessLauncher().launch(tiers, [link], {}) as running:
        result = running.tiers["mobile"].call(probe(link, running.url("mobile", "edge")), deadline_s=60)
    assert 0.06 <= result["rtt_s"] < 0.1
    for direction in ("up", "down"):
        assert result[direction]["rate_bit_per_s"] == pytest.approx(20_000_000, rel=0.1)


def test_a_tier_runs_with_its_threads_and_in_a_session_of_its_own(deployment: Deployment) -> None:
    cloud: Any = deployment.tiers["cloud"]
    environment = Path(f"/proc/{cloud.pid}/environ").read_text().split("\0")
    assert "OMP_NUM_THREADS=2" in environment
    assert "-m tierserver --name cloud" in command_line(cloud.pid)
    assert os.getsid(cloud.pid) == cloud.pid


def test_mounted_files_are_where_the_tier_says(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"bytes")
    mounts = {"mobile": [Mount("model", {"a/head.onnx": model}, "key")]}
    with ProcessLauncher(root=tmp_path).launch([TierLimits("mobile", 1, 1 << 28, 1)], [], mounts) as running:
        assert Path(running.tiers["mobile"].path("model"), "a/head.onnx").read_bytes() == b"bytes"
    assert list(tmp_path.iterdir()) == [model]


def test_nothing_runs_after_the_block_even_when_it_fails(tmp_path: Path) -> None:
    pids: list[int] = []

    def launch_and_fail() -> None:
        with ProcessLauncher(root=tmp_path).launch([TierLimits("mobile", 1, 1 << 28, 1)], [], {}) as running:
            mobile: Any = running.tiers["mobile"]
            pids.append(mobile.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        launch_and_fail()
    assert start_of(pids[0]) is None and not list(tmp_path.iterdir())


def test_a_tier_killed_during_a_call_is_a_clear_error(probe: Callable[..., dict[str, Any]]) -> None:
    tiers = [TierLimits("mobile", 1, 1 << 28, 1), TierLimits("edge", 1, 1 << 28, 1)]
    slow = LinkLimits("mobile-edge", "mobile", "edge", 1_000_000, 1_000_000)
    with ProcessLauncher().launch(tiers, [slow], {}) as running:
        mobile: Any = running.tiers["mobile"]
        killer = threading.Timer(0.3, os.kill, (mobile.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(TierCallError, match="tier 'mobile': TierDied: killed by SIGKILL") as caught:
            mobile.call(probe(slow, running.url("mobile", "edge"), seconds=20), deadline_s=30)
        killer.join()
        assert caught.value.type == "TierDied"


def test_tiers_end_with_a_killed_runner_and_clean_removes_its_directory(
    kill_a_runner: Callable[[str], Any],
) -> None:
    root = Path(tempfile.gettempdir())
    killed = kill_a_runner("process")
    assert wait_until(lambda: all(start_of(pid) is None for pid in killed.tier_pids))
    left = [run for run in root.glob("tierwise-process-*") if f":{killed.pid}:" in run.name]
    assert len(left) == 1
    ProcessLauncher().clean()
    assert not any(path.exists() for path in left)


def test_clean_spares_what_a_live_runner_uses(
    deployment: Deployment, live_runner: Callable[[str], AbstractContextManager[Any]]
) -> None:
    with live_runner("process") as other:
        ProcessLauncher().clean()
        assert all(start_of(pid) for pid in other.tier_pids)
    assert deployment.tiers["edge"].call({"cmd": "stats"}, deadline_s=10)["threads"] >= 1


def test_clean_kills_a_recorded_tier_but_no_stranger(tmp_path: Path, tiers: list[TierLimits]) -> None:
    with ProcessLauncher(root=tmp_path).launch(tiers[:1], [], {}) as running:
        mobile: Any = running.tiers["mobile"]
        (used,) = tmp_path.iterdir()
        host, pid, _ = used.name.split(":")
        run = used.rename(tmp_path / f"{host}:{pid}:1-left")  # as if this very process were another one by now
        (run / "stranger.pid").write_text(f'{{"pid": {os.getpid()}, "start": "{start_of(os.getpid())}"}}')
        assert ProcessLauncher(root=tmp_path).clean() == 2
        assert start_of(mobile.pid) is None and not run.exists()


def test_a_missing_file_is_a_launch_error_and_leaves_nothing(tmp_path: Path, tiers: list[TierLimits]) -> None:
    mounts = {"mobile": [Mount("model", {"m.onnx": tmp_path / "missing.onnx"}, "key")]}
    with pytest.raises(LaunchError, match=r"'m\.onnx' of mount 'model' cannot be read"):
        ProcessLauncher(root=tmp_path).launch(tiers[:1], [], mounts).__enter__()
    assert not list(tmp_path.iterdir())
