"""Every input of two pools, measured three times: the truth that estimates from few inputs are judged by.

    python -m benchmarks.whole_pool make DIR      composes 2 000 pictures for each pool, and the catalog DIR/pools.yaml
    runner fill-catalog -c DIR/pools.yaml -d DIR/pools.db        half an hour with Docker on two quiet cores
    runner export -d DIR/pools.db -o benchmarks/data/whole-pool.json.gz
    python -m benchmarks.whole_pool figure        draws latency over size, docs/latency-over-size.svg

The pools are hard on a rule that knows sizes alone. `formats` has PNG and JPEG, whose decoders differ in speed at the
same size. `content` has JPEGs of one size in bytes and up to a hundred times as many pixels, half of them progressive,
which takes the decoder several times over the picture: latency is not a curve over bytes.
"""

import argparse
import io
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import text

from catalog.evidence.database import open_database
from catalog.exchange.import_files import import_files
from runner.subjects.embedded.datasets import builtin_dataset
from runner.subjects.embedded.images import compose_canvas

REPOSITORY = Path(__file__).parents[1]
EVIDENCE = REPOSITORY / "benchmarks/data/whole-pool.json.gz"
FIGURE = REPOSITORY / "docs/latency-over-size.svg"
PICTURES = 2000
PLACEMENTS = ("mobile", "edge", "cloud")
_SEED = 20261130
_PNG_SHARE = 0.3

_PREPROCESS = "{size: [28, 28], resize: crop, mean: 0.2860, std: 0.3530}"
_CATALOG = """\
# Identity on three tiers over all {pictures} pictures of two pools: what estimates from few inputs should come to.
version: 1
subjects:
  formats: {{model: "{model}", task: any, dataset: {{images: ./formats}}, preprocess: {preprocess}}}
  content: {{model: "{model}", task: any, dataset: {{images: ./content}}, preprocess: {preprocess}}}
operators:
  identity: []
tiers:
  mobile: {{cpus: 0.5, memory: 512m}}
  edge:   {{cpus: 1,   memory: 1g}}
  cloud:  {{cpus: 2,   memory: 4g}}
links:
  mobile-edge: {{bandwidth: 200mbit}}
  edge-cloud:  {{bandwidth: 10mbit}}
strategies:
  - {{operators: [identity], placements: [mobile, edge, cloud]}}
experiment: {{select: systematic, inputs: {pictures}, rounds: 3}}
"""


def formats(random: RandomState) -> tuple[str, bytes]:
    """Compose one picture of the pool of two formats."""
    picture = _scene(random, _log_uniform(random, 64, 400))
    if random.uniform() < _PNG_SHARE:
        return "png", _encoded(picture, "PNG")
    return "jpg", _encoded(picture, "JPEG", quality=85)


def content(random: RandomState) -> tuple[str, bytes]:
    """Compose one JPEG whose size in bytes says little about its pixels."""
    picture = _scene(random, _log_uniform(random, 96, 900))
    quality = int(random.randint(10, 96))
    return "jpg", _encoded(picture, "JPEG", quality=quality, progressive=bool(random.randint(2)))


POOLS = {"formats": formats, "content": content}


def make(directory: Path) -> None:
    """Write the pictures of both pools and the catalog."""
    for seed, (name, compose) in enumerate(POOLS.items()):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(PICTURES):
            # A state for each picture, so that any of them can be composed without those before it.
            suffix, encoded = compose(RandomState([_SEED + seed, index]))
            (folder / f"{index:04d}.{suffix}").write_bytes(encoded)
    model = REPOSITORY / "runner/subjects/builtin/fashion-resnet.onnx"
    (directory / "pools.yaml").write_text(_CATALOG.format(pictures=PICTURES, model=model, preprocess=_PREPROCESS))


def _scene(random: RandomState, side: int) -> Image.Image:
    garments = builtin_dataset("builtin:fashion").validation_garments  # type: ignore[union-attr]
    chosen = random.randint(0, len(garments.images), random.randint(1, 5))
    return Image.fromarray(compose_canvas(garments.images[chosen], garments.labels[chosen], random, side).image)


def _log_uniform(random: RandomState, low: int, high: int) -> int:
    return round(math.exp(random.uniform(math.log(low), math.log(high))))


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class WholePool:
    """One strategy on every input of a pool.

    Attributes
    ----------
    subject, placement : str
    size_bytes : int array, shape (inputs,)
    media : tuple of str
    latency_s : float array, shape (rounds, inputs)
    """

    subject: str
    placement: str
    size_bytes: NDArray[np.int64]
    media: tuple[str, ...]
    latency_s: NDArray[np.float64]


_SAMPLES = """
SELECT m.subject, m.placement, m.round, s.input_id, s.latency_s, i.size, i.media
FROM sample s JOIN measurement m ON m.id = s.measurement_id
JOIN input_pool p ON p.key = m.pool_key JOIN pool_input i ON i.pool_id = p.id AND i.input_id = s.input_id
WHERE m.status = 'complete' AND m.verdict <> 'INVALID' ORDER BY m.subject, m.placement, m.round, i.size, s.input_id
"""


def whole_pools(evidence: Path = EVIDENCE) -> Iterator[WholePool]:
    """Read the strategies of an export of whole pools."""
    with tempfile.TemporaryDirectory() as directory, open_database(Path(directory) / "pools.db", create=True) as opened:
        import_files(opened, [evidence])
        with opened.session() as session:
            rows = session.execute(text(_SAMPLES)).all()
    strategies: dict[tuple[str, str], dict[int, list[tuple[float, int, str]]]] = {}
    for subject, placement, number, _, latency_s, size, media in rows:
        by_round = strategies.setdefault((subject, placement), {})
        by_round.setdefault(number, []).append((latency_s, size, media))
    for (subject, placement), by_round in strategies.items():
        first = next(iter(by_round.values()))
        yield WholePool(
            subject,
            placement,
            np.array([size for _, size, _ in first]),
            tuple(media for *_, media in first),
            np.array([[latency_s for latency_s, *_ in samples] for samples in by_round.values()]),
        )


def figure(pools: Sequence[WholePool], path: Path) -> None:
    """Draw the median latency over rounds of every input over its size, a panel for each strategy."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    # Points as one path each would make a figure of megabytes: they are drawn as pixels within the vector figure.
    plt.rcParams.update({"svg.hashsalt": "tierwise", "font.size": 9})
    subjects = list(dict.fromkeys(pool.subject for pool in pools))
    drawn, axes = plt.subplots(len(subjects), len(PLACEMENTS), figsize=(9, 5.4), sharex="row", squeeze=False)
    by_place: Mapping[tuple[str, str], WholePool] = {(pool.subject, pool.placement): pool for pool in pools}
    for row, subject in zip(axes, subjects, strict=True):
        for panel, placement in zip(row, PLACEMENTS, strict=True):
            pool = by_place[subject, placement]
            latency_ms = 1e3 * np.median(pool.latency_s, axis=0)
            for media, color in (("image/jpeg", "#1f5fa8"), ("image/png", "#c8641e")):
                members = np.array([entry == media for entry in pool.media])
                if members.any():
                    kind = media.removeprefix("image/").upper()
                    panel.scatter(
                        pool.size_bytes[members] / 1e3, latency_ms[members], s=3, c=color, label=kind, rasterized=True
                    )
            panel.set(xscale="log", yscale="log", title=f"{subject}, identity@{placement}")
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel("median of 3 rounds (ms)")
    for panel in axes[-1]:
        panel.set_xlabel("encoded size (kB)")
    # The last row has both formats.
    axes[-1][0].legend(frameon=False, markerscale=3)
    drawn.tight_layout()
    drawn.savefig(path, dpi=110, metadata={"Date": None})
    plt.close(drawn)


def main() -> None:
    """Make the pools, or draw their figure."""
    parser = argparse.ArgumentParser(description="Whole pools: make their pictures, or draw latency over size.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make", help="compose the pictures and the catalog").add_argument("directory", type=Path)
    commands.add_parser("figure", help=f"draw {FIGURE.relative_to(REPOSITORY)}")
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.directory)
        print(f"{arguments.directory}/pools.yaml: {len(POOLS)} pools of {PICTURES} pictures")
        return
    pools = list(whole_pools())
    figure(pools, FIGURE)
    for pool in pools:
        spread = float(np.log(pool.latency_s).std(axis=1).mean())
        print(f"{pool.subject} {pool.placement}: {pool.latency_s.shape[1]} inputs, sd of log latency {spread:.2f}")


if __name__ == "__main__":
    main()
