"""`runner bundle` over the committed evidence: real models, rebuilt, copied, run, and every way it refuses."""

import contextlib
import io
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.artifacts.store import CachedArtifact, CachedFile
from runner.bundles import read_manifest
from runner.bundles.bundle import tier_limits
from runner.bundles.manifest import check_runs
from runner.bundles.run import Bundle
from runner.cli import app, run
from runner.errors import BundleError
from runner.subjects.embedded.datasets import BUILTIN, FashionDataset
from runner.workdir import file_sha256
from tests.runner.commands.conftest import REPOSITORY, Command, Pieces, piece

BUDGETS = ("--max-latency", "100ms", "--percentile", "90", "--max-drop", "1")
Filled = Callable[..., Command]


def picture(directory: Path) -> Path:
    FashionDataset(BUILTIN).write_inputs(directory, ["0042.jpg"])
    return directory / "0042.jpg"


def standing_alone(script: Path, *arguments: str) -> dict[str, Any]:
    """Return what run.py prints, in a process that must not import this project."""
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as left: assert not left.code, left.code\n"
        "ours = {'runner', 'catalog', 'tierserver', 'recommender'} & {each.split('.')[0] for each in sys.modules}\n"
        "assert not ours, ours"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(script), *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    output: dict[str, Any] = json.loads(done.stdout)
    return output


Bundles = Callable[..., Path]


@pytest.fixture(scope="module")
def bundles(pieces: Pieces, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundle the answer of some strategies, once each, and return the directory with all that made it; tests copy it.

    `deploy` has the bundle, `printed` what the command said.
    """

    @cache
    def bundle(strategies: tuple[str, ...], question: tuple[str, ...] = ()) -> Path:
        directory = tmp_path_factory.mktemp("whole")
        for name in ("piece.json", "tierwise.db"):
            shutil.copy(pieces("fashion-resnet", strategies) / name, directory)
        shutil.copy(REPOSITORY / "catalogs/embedded.yaml", directory / "strategies.yaml")
        with contextlib.chdir(directory), contextlib.redirect_stdout(io.StringIO()) as printed:
            assert run(lambda: app(["bundle", "fashion-resnet", *question, "-o", "deploy"])) == 0
        (directory / "printed").write_text(printed.getvalue())
        return directory

    return bundle


@pytest.fixture(scope="module")
def whole(bundles: Bundles) -> Path:
    """Return a directory with a bundle of identity@edge."""
    return bundles(("identity@edge",))


@pytest.fixture
def bundled(whole: Path, command: Command, tmp_path: Path) -> Command:
    """Copy `whole` to where commands run."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return command


@pytest.fixture
def quantized(bundles: Bundles, command: Command, tmp_path: Path) -> Command:
    """Copy a bundle of quantized@edge, the faster one, and its artifacts to where commands run."""
    shutil.copytree(bundles(("quantized@edge", "identity@edge"), BUDGETS), tmp_path, dirs_exist_ok=True)
    return command


@pytest.fixture
def partition(bundles: Bundles, command: Command, tmp_path: Path) -> Command:
    """Copy a bundle of partition@mobile-edge to where commands run."""
    shutil.copytree(bundles(("partition@mobile-edge",)), tmp_path, dirs_exist_ok=True)
    return command


@pytest.mark.usefixtures("quantized")
def test_the_measured_files_are_handed_over_with_all_that_deploys_them(tmp_path: Path) -> None:
    assert "bit-identical to the measured files" in " ".join((tmp_path / "printed").read_text().split())
    target = tmp_path / "deploy"
    assert sorted(path.name for path in target.iterdir()) == ["README.md", "manifest.json", "model.onnx", "run.py"]
    manifest = json.loads((target / "manifest.json").read_text())
    document = piece("fashion-resnet", ["quantized@edge"])
    (strategy,), (artifact,) = document["strategies"], document["artifacts"]
    (part,) = manifest["parts"]
    assert part["sha256"] == artifact["files"][0]["sha256"] == file_sha256(target / "model.onnx")
    assert (part["tier"], part["threads"], part["provider"]) == ("edge", 1, "CPUExecutionProvider")
    assert manifest["evidence"]["latency"] == f"imported:{strategy['latency_key']}"
    assert manifest["evidence"]["imported_from"] == "piece.json"
    assert manifest["question"]["max_latency_s"] == 0.1
    assert manifest["preprocess"]["mean"] == [0.286] and manifest["postprocess"]["kind"] == "top_k"
    assert manifest["check"]["identical"] and manifest["check"]["onnxruntime"]
    assert not any("not shown to be those" in warning for warning in manifest["warnings"])


def test_the_script_runs_without_us_and_gives_what_the_manifest_says(bundled: Command, tmp_path: Path) -> None:
    check = json.loads((tmp_path / "deploy/manifest.json").read_text())["check"]
    FashionDataset(BUILTIN).write_inputs(tmp_path, [check["input"]])
    printed = standing_alone(tmp_path / "deploy/run.py", str(tmp_path / check["input"]), "-o", str(tmp_path / "o.npz"))
    assert len(printed["classes"]) == 5
    with np.load(tmp_path / "o.npz") as arrays:
        for name, output in check["outputs"].items():
            assert (str(arrays[name].dtype), list(arrays[name].shape)) == (output["dtype"], output["shape"])
    assert (tmp_path / "deploy/README.md").read_text().startswith("# fashion-resnet: identity on edge")


@pytest.mark.usefixtures("partition")
def test_a_partition_runs_part_by_part_as_on_its_tiers(tmp_path: Path) -> None:
    manifest = read_manifest(tmp_path / "deploy")
    assert [(part.part, part.tier) for part in manifest.parts] == [("head", "mobile"), ("tail", "edge")]
    assert [link["name"] for link in manifest.links] == ["mobile-edge"]
    script, image, cut = tmp_path / "deploy/run.py", picture(tmp_path), tmp_path / "cut.npz"
    whole = standing_alone(script, str(image))
    standing_alone(script, str(image), "--part", "head", "-o", str(cut))
    assert standing_alone(script, str(cut), "--part", "tail") == whole
    assert "--part tail    # on edge" in (tmp_path / "deploy/README.md").read_text()


def test_a_damaged_cache_is_not_handed_over(partition: Command, tmp_path: Path) -> None:
    (head,) = (tmp_path / ".tierwise/artifacts").glob("*/head.onnx")
    head.write_bytes(head.read_bytes()[:-1] + b"x")
    assert partition("bundle", "fashion-resnet", "-o", "some/where").code == 0
    assert list((tmp_path / "some").iterdir()) == [tmp_path / "some/where"]
    files = (head, tmp_path / "deploy/head.onnx", tmp_path / "some/where/head.onnx")
    assert len({file_sha256(file) for file in files}) == 1


def test_check_tells_damage_later(bundled: Command, tmp_path: Path) -> None:
    command = bundled
    assert command("bundle", "--check", "deploy").code == 0
    model = tmp_path / "deploy/model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    (tmp_path / "deploy/README.md").unlink()
    done = command("bundle", "--check", "deploy")
    assert done.code == 1
    assert "README.md is missing; model.onnx is not the file that was bundled" in done.said
    by_script = subprocess.run([sys.executable, "-I", "deploy/run.py", "--check"], capture_output=True, text=True)
    assert (by_script.returncode, "README.md is missing" in by_script.stdout) == (1, True)


def test_a_bundle_that_answers_otherwise_is_refused(bundled: Command, tmp_path: Path) -> None:
    directory = tmp_path / "deploy"
    manifest = read_manifest(directory)
    (part,) = manifest.parts
    original = CachedArtifact("key", directory, (CachedFile(part.part, part.file, part.sha256, part.size_bytes),))
    encoded = picture(tmp_path).read_bytes()
    check_runs(directory, manifest, original, name="it", encoded=encoded)
    changed = manifest.model_copy(update={"preprocess": manifest.preprocess | {"mean": [0.5]}})
    (directory / "manifest.json").write_text(changed.to_json())
    with pytest.raises(BundleError, match=r"does not give what the measured files give on it: .*scores"):
        check_runs(directory, manifest, original, name="it", encoded=encoded)


def test_nothing_feasible_prints_the_near_misses(filled: Filled, tmp_path: Path) -> None:
    command = filled("fashion-resnet", "quantized@edge", "identity@edge")
    done = command("bundle", "fashion-resnet", "--max-latency", "1ms", "-o", "deploy")
    assert done.code == 1
    assert "no strategy within the budgets" in done.out and "quantized on edge" in done.out
    assert "nothing to bundle: no strategy is proven to hold these budgets" in done.said
    answer = json.loads(command("bundle", "fashion-resnet", "--max-latency", "1ms", "-o", "deploy", "--json").out)
    assert answer["recommendation"] is None and len(answer["near_misses"]) == 2
    assert not (tmp_path / "deploy").exists()


def test_what_is_only_likely_is_bundled_on_request_alone(quantized: Command, tmp_path: Path) -> None:
    command = quantized
    question = ("fashion-resnet", "--max-latency", "100ms", "--confidence", "0.999999999999")
    done = command("bundle", *question, "-o", "likely")
    assert done.code == 1 and "(it is likely, > 99.9 %)" in done.said
    accepted = command("bundle", *question, "--accept", "likely=0.9", "-o", "likely", "--json")
    assert accepted.code == 0 and json.loads(accepted.out)["answer"]["status"] == "likely"
    assert (tmp_path / "likely").exists()


def test_a_full_disk_leaves_nothing(bundled: Command, tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    arguments = [sys.executable, "-m", "runner", "bundle", "fashion-resnet", "-o", "some/where"]
    done = subprocess.run(arguments, capture_output=True, text=True, preexec_fn=small_files, timeout=120)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert said == "error: some/where cannot be written: File too large; nothing was left there"
    assert not (tmp_path / "some").exists() and not list(tmp_path.glob(".where*"))


def test_what_cannot_be_handed_over_is_one_error(filled: Filled, tmp_path: Path) -> None:
    # Nothing is built yet: only then is the model asked for.
    command = filled("fashion-resnet", "identity@edge")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    catalog = (tmp_path / "strategies.yaml").read_text()
    other = catalog.replace('"builtin:fashion-resnet"', '"builtin:fashion-resnext"')
    (tmp_path / "other.yaml").write_text(other)
    without = "\n".join(line for line in catalog.splitlines() if not line.startswith("  fashion-resnet:"))
    (tmp_path / "without.yaml").write_text(without)
    for arguments, message in (
        (("-o", "full"), "full exists and is not an empty directory; name another one"),
        (("-o", "strategies.yaml"), "strategies.yaml exists and is not an empty directory"),
        (("-o", "x", "-c", "other.yaml"), "is another model than the one measured (imported from piece.json)"),
        (("-o", "x", "-c", "without.yaml"), "without.yaml does not declare the subject 'fashion-resnet'"),
        (("-o", "x", "-c", "none.yaml"), "none.yaml"),
        (("-o", "x", "-d", "none.db"), "no evidence database at 'none.db'"),
        (("-o", "/proc/x"), "/proc/x cannot be written"),
    ):
        done = command("bundle", "fashion-resnet", *arguments)
        assert (done.code, done.out) == (1, ""), arguments
        assert message in done.said, arguments
    assert command("bundle", "fashion-resnet").code == 2
    assert not (tmp_path / "x").exists()
    for content in ("{}", "[", '{"format": "tierwise-bundle", "version": 2}'):
        (tmp_path / "full/manifest.json").write_text(content)
        done = command("bundle", "--check", "full")
        assert done.code == 1 and "it is not a manifest of a bundle" in done.said
    nowhere = command("bundle", "--check", "nowhere")
    assert nowhere.code == 1 and "nowhere is not a bundle: manifest.json cannot be read" in nowhere.said
    assert not (tmp_path / "nowhere").exists()


def test_evidence_without_files_says_what_to_do(command: Command, tmp_path: Path) -> None:
    rows = "".join(
        f"fashion-resnet,identity,edge,{item}.jpg,0,0.01,{number}\n" for number in (1, 2, 3) for item in range(30)
    )
    header = "subject,operator,placement,input_id,repetition,latency_s,round\n"
    (tmp_path / "phone.csv").write_text(header + rows)
    assert command("import", "phone.csv").code == 0
    done = command("bundle", "fashion-resnet", "-o", "x")
    assert done.code == 1
    assert "(imported from phone.csv) does not say which model files were measured" in done.said
    assert "runner fill-catalog" in done.said


TIER = {"name": "edge", "provider": "cpu", "threads": 1, "cpus": 1.0, "memory_bytes": 2**30}


@pytest.mark.parametrize(
    "tiers",
    [None, "edge", ["edge"], [{}], [{"name": ["edge"]}], [TIER | {"provider": "npu"}], [TIER | {"threads": "two"}]],
)
def test_conditions_from_elsewhere_may_say_anything_of_tiers(tiers: object) -> None:
    """Another program may have written the stored conditions: what is not known in full is left out."""
    assert tier_limits({"tiers": tiers}) == {}
    assert tier_limits({"tiers": [3, TIER]}) == {"edge": TIER}


def test_a_bundle_of_evidence_with_foreign_conditions_says_what_is_missing(bundled: Command, tmp_path: Path) -> None:
    """Tiers without a provider ended in a stack trace."""
    document = piece("fashion-resnet", ("identity@edge",))
    conditions = [{"placement": ["edge"], "tiers": [{"name": "edge"}], "links": []}] * len(document["measurements"])
    changed = [entry | {"conditions": said} for entry, said in zip(document["measurements"], conditions, strict=True)]
    (tmp_path / "foreign.json").write_text(json.dumps(document | {"measurements": changed}))
    assert bundled("import", "foreign.json", "-d", "foreign.db").code == 0
    done = bundled("bundle", "fashion-resnet", "-o", "x", "-d", "foreign.db")
    assert done.code == 1 and "(imported from foreign.json) does not say how its tiers ran" in done.said


def test_a_part_that_is_not_there_names_those_that_are(whole: Path) -> None:
    with pytest.raises(SystemExit, match="there is no part 'tail'; the parts are: model"):
        Bundle(whole / "deploy", part="tail")
