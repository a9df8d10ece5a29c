"""Real tiers as processes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.errors import LaunchError, TierCallError
from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits
from runner.launchers.process import ProcessLauncher, runs_directory
from runner.workdir import Owner, command_line, start_of


@pytest.fixture(scope="module")
def deployment(tiers: list[TierLimits], links: list[LinkLimits]) -> Iterator[Deployment]:
    with ProcessLauncher().launch(tiers, links, {}) as running:
        for name, tier in running.tiers.items():
            tier.call({"cmd": "load", "parts": [], "routes": running.routes(name)}, deadline_s=20)
        yield running


def test_counters_of_a_control_group_that_is_shared_are_not_the_tiers(deployment: Deployment) -> None:
    """Its peak of memory is that of all programs in it, which a constraint would hold against the strategy."""
    stats = deployment.tiers["cloud"].call({"cmd": "stats"}, deadline_s=20)
    assert stats["memory"] is None and stats["cgroup"] is None
    assert 0 < stats["peak_rss_bytes"] < 2**30


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.alone
def test_links_are_paced_in_both_directions(
    deployment: Deployment, links: list[LinkLimits], probe: Callable[..., dict[str, Any]]
) -> None:
    for link in links:
        url = deployment.url(link.upstream, link.downstream)
        result = deployment.tiers[link.upstream].call(probe(link, url), deadline_s=60)
        for direction in ("up", "down"):
            assert result[direction]["rate_bit_per_s"] == pytest.approx(link.up_bit_per_s, rel=0.1)


@pytest.mark.alone
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
    killed = kill_a_runner("process")
    assert wait_until(lambda: all(start_of(pid) is None for pid in killed.tier_pids))
    left = [run for run in runs_directory().iterdir() if f":{killed.pid}:" in run.name]
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


def dead_run(root: Path) -> Path:
    """Return the directory of a run whose runner has ended."""
    run = root / f"process-{replace(Owner.current(), start='1')}-left"
    run.mkdir(mode=0o700)
    return run


def record(run: Path, name: str, pid: int) -> None:
    (run / f"{name}.pid").write_text(json.dumps({"pid": pid, "start": start_of(pid)}))


def test_clean_kills_what_a_dead_run_started(tmp_path: Path) -> None:
    run = dead_run(tmp_path)
    speeds = ["--up-bit-per-s", "1000", "--down-bit-per-s", "1000"]
    command = [sys.executable, f"-Xtierwise-run={run.name}", "-m", "tierserver.paced_link", *speeds]
    with subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdin=subprocess.PIPE) as link:
        record(run, "link", link.pid)
        # The kernel shows a command line a moment after it has begun to run it.
        assert wait_until(lambda: run.name in command_line(link.pid))
        # As long as `clean` waits, so that this process has it for a zombie.
        assert ProcessLauncher(root=tmp_path).clean() == 2
        assert link.wait() == -signal.SIGKILL
    assert not run.exists()


def test_clean_believes_no_record_that_names_a_stranger_or_the_tier_of_a_live_run(
    tmp_path: Path, tiers: list[TierLimits]
) -> None:
    with ProcessLauncher(root=tmp_path).launch(tiers[:1], [], {}) as running:
        mobile: Any = running.tiers["mobile"]
        run = dead_run(tmp_path)
        record(run, "tier", mobile.pid)
        record(run, "stranger", os.getpid())
        assert ProcessLauncher(root=tmp_path).clean() == 1
        assert start_of(mobile.pid) is not None and not run.exists()
        assert running.tiers["mobile"].call({"cmd": "stats"}, deadline_s=10)["threads"] >= 1


FORGED = {
    "a number that is no digit": '{"pid": "²", "start": "1"}',
    "a group of processes": '{"pid": -1, "start": "1"}',
    "every process": '{"pid": 0, "start": "1"}',
    "more than any process": '{"pid": 1e400, "start": "1"}',
    "no start": '{"pid": 1}',
    "a list": "[1, 2]",
    "deep": "[" * 900,
    "long": " " * 10_000_000 + '{"pid": 1, "start": "1"}',
    "nothing": "",
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED.keys())
def test_a_record_of_anything_else_is_ignored(tmp_path: Path, content: str) -> None:
    run = dead_run(tmp_path)
    (run / "forged.pid").write_text(content)
    assert ProcessLauncher(root=tmp_path).clean() == 1
    assert not run.exists()


def test_a_record_that_never_ends_is_not_read(tmp_path: Path) -> None:
    run = dead_run(tmp_path)
    (run / "endless.pid").symlink_to("/dev/zero")
    os.mkfifo(run / "waiting.pid")
    (run / "folder.pid").mkdir()
    assert ProcessLauncher(root=tmp_path).clean() == 1


def test_the_names_of_runs_may_be_anything(tmp_path: Path) -> None:
    """What is no name of ours stays, and a link is not followed."""
    (tmp_path / "kept").mkdir()
    names = ["process-host:²:1-x", "process-", "process-:::-", "process-" + "9" * 200]
    for name in names:
        (tmp_path / name).mkdir()
    dead_run(tmp_path).rename(tmp_path / "kept" / "inside")
    (tmp_path / f"process-{replace(Owner.current(), start='1')}-link").symlink_to(tmp_path / "kept")
    assert ProcessLauncher(root=tmp_path).clean() == 0
    assert (tmp_path / "kept" / "inside").is_dir() and all((tmp_path / name).is_dir() for name in names)


@pytest.mark.parametrize("launch", [False, True])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, tiers: list[TierLimits], launch: bool) -> None:
    tmp_path.chmod(0o777)
    launcher = ProcessLauncher(root=tmp_path)
    with pytest.raises(LaunchError, match=r"other users can write.*permissions 0700.*TMPDIR"):
        launcher.launch(tiers[:1], [], {}).__enter__() if launch else launcher.clean()


def test_runs_are_in_a_directory_of_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o1777)
    forged = tmp_path / f"tierwise-process-{replace(Owner.current(), start='1')}-forged"
    forged.mkdir()
    assert ProcessLauncher().clean() == 0 and not runs_directory().exists()
    with ProcessLauncher().launch([TierLimits("mobile", 1, 1 << 28, 1)], [], {}):
        assert runs_directory().stat().st_mode & 0o777 == 0o700
        assert len(list(runs_directory().iterdir())) == 1
    assert forged.is_dir()


def test_a_missing_file_is_a_launch_error_and_leaves_nothing(tmp_path: Path, tiers: list[TierLimits]) -> None:
    mounts = {"mobile": [Mount("model", {"m.onnx": tmp_path / "missing.onnx"}, "key")]}
    with pytest.raises(LaunchError, match=r"'m\.onnx' of mount 'model' cannot be read"):
        ProcessLauncher(root=tmp_path).launch(tiers[:1], [], mounts).__enter__()
    assert not list(tmp_path.iterdir())
