"""`runner init`: a commented catalog to start from, written without a question."""

from pathlib import Path
from typing import Annotated

import typer

from catalog.declaration import parse_catalog
from runner.commands.schema import EDITOR_LINE, SCHEMA_NAME, write_schema
from runner.commands.terminal import err, example
from runner.errors import RunnerError

_CATALOG = """\
{editor_line}
# What to compare, where, and within which budgets. `runner validate` checks this file, `runner plan` shows what
# would be measured and how long it takes, `runner fill-catalog` measures it.
version: 1

subjects:                       # a trained model, its task, and the data it is judged on
  fashion-resnet:
    model: builtin:fashion-resnet
    task: classification
    dataset: builtin:fashion

operators:                      # a pipeline of passes, in order; add your own by name
  identity: []
  quantized: [static_ptq]       # int8 weights and activations, ranges from calibration images
  early_exit: [{{early_exit: {{blocks: 2}}}}]     # without the last two of a run of identical blocks
  partition: [{{partition: {{balance: size}}}}]   # head and tail of nearly equal size
  quantized_early_exit: [static_ptq, early_exit]
  quantized_early_exit_partition: [static_ptq, early_exit, partition]

tiers:                          # the first is the client's: latency is measured from there
  mobile: {{cpus: 0.5, memory: 512m, provider: cpu}}
  edge:   {{cpus: 1,   memory: 1g,   provider: cpu}}
  cloud:  {{cpus: 2,   memory: 4g,   provider: [cuda, cpu]}}

links:                          # bandwidth for both directions, or up and down; delay where the host can emulate it
  mobile-edge: {{bandwidth: 200mbit}}
  edge-cloud:  {{bandwidth: 10mbit}}

strategies:                     # every listed operator on every listed placement
  - {{operators: [identity, quantized, early_exit, quantized_early_exit], placements: [mobile, edge, cloud]}}
  - {{operators: [partition, quantized_early_exit_partition], placements: [mobile-edge, edge-cloud, mobile-cloud]}}

experiment: {{inputs: 30, select: random, seed: 1, rounds: 3, repetitions: 1, warmup: 1}}

slos:                           # budgets by name
  interactive: {{latency: {{p90: 100ms}}, accuracy: {{max_drop: 1.0}}}}
  batch: {{latency: {{p90: 1s}}, accuracy: {{max_drop: 0.5}}}}
"""

OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Where to write the catalog")]


def init(output: OutputOption = Path("strategies.yaml")) -> None:
    """Write a commented catalog and its schema; what exists is left alone."""
    text = _CATALOG.format(editor_line=EDITOR_LINE)
    parse_catalog(text, output)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RunnerError(
            f"{output} exists and is left alone; choose another name with --output, or check it with: "
            f"runner validate -c {output}"
        ) from None
    except OSError as error:
        raise RunnerError(f"cannot write {output}: {error.strerror}; choose another place with --output") from error
    write_schema(output.parent / SCHEMA_NAME)
    option = "" if output == Path("strategies.yaml") else f" -c {output}"
    err.print(
        f"written: {output} and {output.parent / SCHEMA_NAME}\nnext:\n"
        f"  runner doctor                  what this host can do\n"
        f"  runner plan{option}            what would be measured, and how long it takes\n"
        f"  runner fill-catalog{option}    measure it\n"
        f"  recommender                    answer questions about it",
        highlight=False,
    )


def add_to(app: typer.Typer) -> None:
    """Register it."""
    app.command(epilog=example("runner init", "runner init -o mine.yaml"))(init)
