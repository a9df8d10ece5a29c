"""The bundle's README: what it is, what it promises, and how to run it."""

from recommender.answer.wording import duration, percentile_name
from runner.bundles.manifest import MANIFEST, SCRIPT, Manifest, PartEntry
from runner.reports.units import size


def readme(manifest: Manifest) -> str:
    """The whole text, in Markdown."""
    return "\n".join(
        [
            f"# {manifest.subject}: {manifest.operator} on {manifest.placement}",
            "",
            manifest.summary,
            "",
            _promise(manifest),
            "",
            "| part | file | tier | provider | threads | size |",
            "|---|---|---|---|---|---|",
            *(_row(each) for each in manifest.parts),
            "",
            "## Run it",
            "",
            "```console",
            f"$ pip install {_requirements(manifest)}",
            *_commands(manifest),
            "```",
            "",
            f"`{SCRIPT}` is an example to build on: it reads `{MANIFEST}`, creates the sessions with the settings the "
            "measurement had, and contains pre- and post-processing. `python run.py --check` compares the files with "
            "their checksums.",
            "",
            *_warnings(manifest),
        ]
    )


def _row(each: PartEntry) -> str:
    cells = (each.part, each.file, each.tier, each.provider, each.threads, size(each.size_bytes))
    return f"| {' | '.join(map(str, cells))} |"


def _promise(manifest: Manifest) -> str:
    latency, it = manifest.answer["latency"], manifest.evidence
    interval = ""
    if latency["low_s"] is not None and latency["high_s"] is not None:
        interval = f" (95 % interval {duration(latency['low_s'])} to {duration(latency['high_s'])})"
    where = f"{it.cpu_model}, launcher {it.launcher}" + ("" if it.scale == "1" else f", emulated at {it.scale}")
    known_by = "Predicted" if latency["predicted"] else "Measured"
    return (
        f"{known_by} {percentile_name(latency['percentile'])}: {duration(latency['percentile_s'])}{interval}; "
        f"{manifest.conditions}; on {where}, until {it.measured_at}."
    )


def _requirements(manifest: Manifest) -> str:
    used = manifest.versions["bundled"]
    names = ["onnxruntime", "numpy", *(() if manifest.preprocess["kind"] == "tensors" else ("pillow",))]
    return " ".join(f"{name}=={used[name]}" for name in names)


def _commands(manifest: Manifest) -> list[str]:
    given = "inputs.npy" if manifest.preprocess["kind"] == "tensors" else "picture.jpg"
    lines = [f"$ python {SCRIPT} {given}"]
    if len(manifest.parts) > 1:
        for index, each in enumerate(manifest.parts):
            source = given if index == 0 else f"cut{index}.npz"
            kept = f" -o cut{index + 1}.npz" if index + 1 < len(manifest.parts) else ""
            lines.append(f"$ python {SCRIPT} {source} --part {each.part}{kept}    # on {each.tier}")
    return lines


def _warnings(manifest: Manifest) -> list[str]:
    if not manifest.warnings:
        return []
    return ["## To know", "", *(f"- {each}" for each in manifest.warnings), ""]
