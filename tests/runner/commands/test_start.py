"""`runner init`, `runner schema` and `runner doctor`: how one starts."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema_rs import Draft202012Validator, ValidationError

from runner.cli import app, run
from runner.commands.schema import EDITOR_LINE, catalog_schema

REPOSITORY = Path(__file__).parents[3]
CATALOGS = [REPOSITORY / "strategies.yaml", *sorted((REPOSITORY / "catalogs").glob("*.yaml"))]


def test_init_writes_what_validates_and_spares_what_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(lambda: app(["init"])) == 0
    assert "runner fill-catalog" in capsys.readouterr().err
    written = (tmp_path / "strategies.yaml").read_text()
    assert written.splitlines()[0] == EDITOR_LINE
    assert run(lambda: app(["validate"])) == 0
    assert "valid: 1 subjects, 18 strategies" in capsys.readouterr().out
    assert run(lambda: app(["init"])) == 1
    assert "exists and is left alone" in capsys.readouterr().err
    assert (tmp_path / "strategies.yaml").read_text() == written
    schema = json.loads((tmp_path / "strategies.schema.json").read_text())
    Draft202012Validator(schema).validate(yaml.safe_load(written))


def test_init_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["init", "-o", str(tmp_path / "nowhere" / "a.yaml")])) == 1
    said = capsys.readouterr().err
    assert "cannot write" in said and "Traceback" not in said


@pytest.mark.parametrize("catalog", CATALOGS, ids=lambda path: path.name)
def test_every_catalog_of_ours_follows_the_schema(catalog: Path) -> None:
    Draft202012Validator(catalog_schema()).validate(yaml.safe_load(catalog.read_text()))


@pytest.mark.parametrize("change", [{"version": 2}, {"tiers": {}}, {"strategy": []}, {"experiment": {"inputs": "30"}}])
def test_the_schema_refuses_what_the_parser_refuses(change: dict[str, object]) -> None:
    declared = yaml.safe_load((REPOSITORY / "strategies.yaml").read_text())
    with pytest.raises(ValidationError):
        Draft202012Validator(catalog_schema()).validate(declared | change)


def test_the_committed_schema_is_this_one() -> None:
    assert json.loads((REPOSITORY / "strategies.schema.json").read_text()) == catalog_schema(), (
        "renew it with: runner schema -o strategies.schema.json"
    )


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["schema"])) == 0
    assert json.loads(capsys.readouterr().out) == catalog_schema()


def test_doctor_names_each_lack_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert run(lambda: app(["doctor", "--json"])) == 0
    findings = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert {"CPUs", "memory", "disk", "int8 (VNNI)", "GPU (CUDA)", "Docker engine", "shaping of links"} == set(findings)
    assert findings["Docker engine"]["found"] == "none" and findings["Docker engine"]["advice"]


@pytest.mark.docker
def test_doctor_looks_into_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: app(["doctor"])) == 0
    said = capsys.readouterr().out
    assert "tbf, in the kernel" in said and "tier image" in said
