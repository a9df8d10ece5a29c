"""`runner operators` and `runner apply`: the operators on any ONNX file, without tiers and evidence."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from catalog.artifact_details import OutputDistance, output_distance
from catalog.console import Console, labelled, open_table, stdout_width
from catalog.declaration import Catalog, load_catalog
from catalog.units import size
from runner.artifacts.apply_operator import apply_operator, parse_pipeline
from runner.artifacts.calibration import Calibration, read_calibration, subject_calibration
from runner.artifacts.model_runs import TRIAL_INPUTS, find_obstacle
from runner.artifacts.store import NOT_VERIFIED, RANDOM_DETAIL, ArtifactStore
from runner.commands.terminal import RunnerSettings, example
from runner.errors import OperatorError, SubjectError
from runner.graph.analysis import Exit, GraphAnalysis, analyse
from runner.graph.runtime import REMEDY
from runner.operators.base import listed
from runner.operators.registry import Prospects, known_passes, look_ahead
from runner.reports.skeleton import operators_report, skeleton_svg, where_text
from runner.subjects.dataset import Subject
from runner.subjects.embedded.datasets import SUBJECTS, resolve_subject

_BUILTIN = "builtin:"
out = Console(width=stdout_width(piped=130))
err = Console(stderr=True)

ModelArgument = Annotated[str, typer.Argument(help="An ONNX file, or builtin:NAME", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(
        "operators",
        epilog=example(
            "runner operators model.onnx --svg skeleton.svg",
            "runner operators segmenter.onnx --dimension height=640 --dimension width=640 --json",
        ),
    )(operators)
    app.command(
        "apply",
        epilog=example(
            "runner apply partition model.onnx -o parts",
            "runner apply 'static_ptq, early_exit: {blocks: 3}' model.onnx -o out --calibration inputs.npz",
            "runner apply quantized_early_exit builtin:fashion-resnet -o out",
        ),
    )(apply)


def operators(
    model: ModelArgument,
    blocks: Annotated[int, typer.Option("--blocks", min=1, help="Blocks that early_exit skips")] = 2,
    cut: Annotated[
        str, typer.Option("--cut", help="paper: no identity branch is cut; any: the best balance")
    ] = "paper",
    dimension: Annotated[
        list[str] | None, typer.Option("--dimension", help="A free dimension's size, as height=640", show_default=False)
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also draw the graph's skeleton to this file")] = None,
    as_json: JsonOption = False,
) -> None:
    """Analyse where a model can be shortened or cut.

    Shows its repeated blocks, its exits with the bytes saved, and its cuts with both sizes and the bytes that cross the
    link.
    """
    if cut not in ("paper", "any"):
        raise typer.BadParameter(f"{cut!r}; allowed: paper, any", param_hint="--cut")
    chosen = _model(model)
    analysis = analyse(chosen.path, sizes=_dimensions(dimension or ()))
    prospects = look_ahead(analysis, blocks=blocks, paper=cut == "paper")
    # Where every pass is refused anyway, whether the model runs says nothing more.
    is_open = chosen.subject is None and len(prospects.refusals) < len(known_passes())
    obstacle = find_obstacle(chosen.path) if is_open else None
    if obstacle is not None and not obstacle.loads:
        prospects = prospects.refused(obstacle.text)
    if svg is not None:
        _write(svg, skeleton_svg(analysis, prospects))
        err.print(f"drawn: {svg}")
    if as_json:
        content = _analysis_json(analysis, prospects) | {"obstacle": obstacle and obstacle.text}
        print(json.dumps(content, indent=2))
        return
    out.print(operators_report(analysis, prospects))
    if obstacle is not None and obstacle.loads:
        text = f"{obstacle.text}: where it runs on none of its data either, every operator is refused"
        err.print(Text(text, "yellow"), soft_wrap=True)
    for output in prospects.unserved:
        text = f"no tier serves this model: its output {output}. {REMEDY}"
        err.print(Text(text, "yellow"), soft_wrap=True)


def apply(
    operator: Annotated[
        str,
        typer.Argument(
            help="An operator declared in the catalog file, or passes as it spells them: "
            "'static_ptq, early_exit: {blocks: 3}'",
            show_default=False,
        ),
    ],
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new directory for the files", show_default=False)],
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="Ready input tensors: .npz, .npy, or a directory of them; of several inputs an array for each, named "
            "like it (builtin models bring their own)",
        ),
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option("--catalog", "-c", help="Where operators are declared (default strategies.yaml)")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Apply an operator to a model and write the verified files.

    A manifest is written beside them. Exit code 1 when the model does not allow the operator.
    """
    pipeline = parse_pipeline(operator, _catalog(catalog))
    chosen = _model(model)
    # As many as the pass that wants the most.
    samples = max((step.calibration_samples for step in pipeline.passes()), default=0)
    store = ArtifactStore(RunnerSettings().workdir / "artifacts")
    inputs = chosen.calibration(calibration, samples)
    manifest = apply_operator(pipeline, chosen.path, output, calibration=inputs, store=store)
    # Warnings go to stderr, so that --json stays one document.
    for did in manifest["did"]:
        for warning in did.get("warnings", ()):
            err.print(labelled(f"{did['pass']}:", "yellow", warning))
    for warning in manifest["proof"].get("composition", {}).get("warnings", ()):
        err.print(labelled("partition:", "yellow", warning))
    if random := manifest["proof"].get(RANDOM_DETAIL):
        text = f"{listed(random)} may draw other numbers at each run: compared with seeds, measured only on average"
        err.print(labelled(f"{pipeline.name}:", "yellow", text))
    distance = output_distance(manifest)
    if distance is not None and distance.warning:
        err.print(labelled(f"{pipeline.name}:", "yellow", distance.warning))
    if as_json:
        print(json.dumps(manifest, indent=2))
        return
    out.print(_files_table(manifest, output))


@dataclass(frozen=True)
class _Model:
    """A model file, and the subject it belongs to if it is an embedded one."""

    path: Path
    subject: Subject | None = None

    def calibration(self, file: Path | None, samples: int) -> Calibration:
        """Return what was given, or the embedded subject's own: at least those that the proof wants."""
        if file is not None:
            return read_calibration(file, self.path)
        if self.subject is None:
            return Calibration()
        inputs = subject_calibration(self.subject)(max(samples, TRIAL_INPUTS))
        return Calibration(inputs, str(self.subject.name))


def _model(text: str) -> _Model:
    family = SUBJECTS.get(text)
    # A file may have a name that looks like that of an embedded model.
    if family is None and (not text.startswith(_BUILTIN) or Path(text).is_file()):
        return _Model(Path(text))
    if family is None:
        raise SubjectError(f"unknown model {text!r}; allowed: a file, {', '.join(SUBJECTS)}")
    subject = resolve_subject(text, text, family.dataset, family.task)
    return _Model(subject.model, subject)


def _catalog(path: Path | None) -> Catalog | None:
    """Return the named catalog, or the default one if its file exists."""
    if path is None and not RunnerSettings().catalog.is_file():
        return None
    return load_catalog(path or RunnerSettings().catalog)


def _dimensions(texts: Sequence[str]) -> dict[str, int]:
    pairs = [text.partition("=") for text in texts]
    wrong = [text for text, (name, _, value) in zip(texts, pairs, strict=True) if not name or not value.isdecimal()]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r}; write NAME=SIZE, as in height=640", param_hint="--dimension")
    return {name: int(value) for name, _, value in pairs}


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}") from error


def _analysis_json(analysis: GraphAnalysis, prospects: Prospects) -> dict[str, Any]:
    """Return the analysis with its derived figures and the answers of the passes."""
    content = asdict(replace(analysis, exits=())) | {"path": str(analysis.path)}
    # They follow from the names of inputs and outputs.
    del content["states"]
    content["exits"] = [_exit_json(analysis, exit_) for exit_ in analysis.exits]
    # Derived figures are properties, which `asdict` leaves out.
    for entry, cut in zip(content["cuts"], analysis.cuts, strict=True):
        entry |= {
            "where": where_text(analysis, cut),
            "difference_bytes": cut.difference_bytes,
            "crossing_bytes": cut.crossing_bytes,
        }
    content["unserved"] = list(prospects.unserved)
    content["passes"] = {
        "static_ptq": {"refusal": prospects.quantization_refusal, "quantizable": dict(prospects.quantizable)},
        # `and` keeps the None of a pass that was refused.
        "early_exit": {"refusal": prospects.exit_refusal, "exit": prospects.exit and _chosen_json(prospects.exit)},
        "partition": {"refusal": prospects.cut_refusal, "cut": prospects.cut and asdict(prospects.cut)},
    }
    return content


def _exit_json(analysis: GraphAnalysis, exit_: Exit) -> dict[str, Any]:
    """Return an exit without its blocks: how many of which run there are, the first and the last by name."""
    first, last = exit_.run.blocks[-exit_.count].name, exit_.run.blocks[-1].name
    place = {"run": analysis.runs.index(exit_.run), "count": exit_.count, "first": first, "last": last}
    return place | _gain_json(exit_)


def _chosen_json(exit_: Exit) -> dict[str, Any]:
    """Return an exit with its blocks."""
    return {"blocks": [asdict(block) for block in exit_.blocks]} | _gain_json(exit_)


def _gain_json(exit_: Exit) -> dict[str, Any]:
    return {
        "entry": asdict(exit_.entry),
        "result": asdict(exit_.result),
        "saved_bytes": exit_.saved_bytes,
        "saved_share": exit_.saved_share,
        "weight_bytes": exit_.weight_bytes,
    }


def _files_table(manifest: Mapping[str, Any], output: Path) -> Table:
    whole = manifest["model"]["size_bytes"]
    title = f"{output}: {size(manifest['size_bytes'])} of {size(whole)}; {_shown(manifest)}"
    table = open_table("part", "file", "size", "sha256", title=title)
    for file in manifest["files"]:
        table.add_row(file["part"], file["file"], size(file["size_bytes"]), file["sha256"])
    return table


def _shown(manifest: Mapping[str, Any]) -> str:
    """Return what was shown of the files, in one phrase."""
    composition, distance = manifest["proof"].get("composition"), output_distance(manifest)
    if NOT_VERIFIED in manifest:
        return f"not verified: {manifest[NOT_VERIFIED]}"
    shown = ["valid, loads, same signature"]
    if composition is not None:
        kind = "bit-identical to the whole" if composition["bit_identical"] else "NOT bit-identical to the whole"
        tried = f"{composition['inputs']} {composition['source']}, {composition['extremes']} extreme"
        shown.append(f"parts {kind} on these inputs ({tried})")
    if distance is not None:
        shown.append(_difference(distance))
    return "; ".join(shown)


def _difference(distance: OutputDistance) -> str:
    """Return how far the outputs are from the model's."""
    if distance.relative_error is None:
        return f"{distance.warning}"
    return f"outputs differ from the model's by {distance.relative_error:.2%} ({distance.basis})"
