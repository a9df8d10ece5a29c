"""Every number that the study's result sections state, with the finding of a report that states the same quantity.

Numbers are listed once per section, as written there. What they are about is not the study's evidence but its form:
`left` against `right`, over the subjects of the sentence. Where the study averages opposite directions, the report
states no such number on purpose.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "average", "lowest", "highest", "one", "median", "seconds",
    "least drop", "most drop", "p of drop", "level", "effect of drop",
    "average size", "least size", "most size", "p",
]  # fmt: skip
ALL = ("resnet", "resnext", "fcn", "duc")
RES, SEG, BUT_FCN = ALL[:2], ALL[2:], ("resnet", "resnext", "duc")
ID, Q, E, QE = "identity", "quantized", "early_exit", "quantized_early_exit"
P, QEP = "partition", "quantized_early_exit_partition"
ME, EC, MC = "mobile-edge", "edge-cloud", "mobile-cloud"


@dataclass(frozen=True)
class Claim:
    """A number of the study: `written` in `section`, a `kind` of quantity of `left` against `right` over `subjects`."""

    section: str
    written: str
    kind: Kind
    left: str
    right: str
    subjects: tuple[str, ...]


def factors(section: str, written: str, left: str, right: str, subjects: tuple[str, ...] = ALL) -> Iterator[Claim]:
    """Yield an average and the two ends of its range; `-` stands for what the section does not state."""
    kinds: tuple[Kind, ...] = ("average", "lowest", "highest")
    for number, kind in zip(written.split(), kinds, strict=True):
        if number != "-":
            yield Claim(section, number, kind, left, right, subjects)


def singles(
    section: str, written: str, kind: Kind, left: str, right: str = "", subjects: tuple[str, ...] = ALL
) -> Iterator[Claim]:
    """Yield one number per subject."""
    for number, subject in zip(written.split(), subjects, strict=True):
        yield Claim(section, number, kind, left, right, (subject,))


def drops(section: str, written: str, left: str, right: str) -> Iterator[Claim]:
    """Yield the least and the most drop of accuracy, then what the study's test says of it, where it is stated."""
    kinds: tuple[Kind, ...] = ("least drop", "most drop", "effect of drop", "p of drop", "level")
    for number, kind in zip(written.split(), kinds, strict=False):
        yield Claim(section, number, kind, left, right, ALL)


def sizes(section: str, written: str, left: str, right: str, subjects: tuple[str, ...] = ALL) -> Iterator[Claim]:
    """Yield the average ratio of model sizes and the ends of its range."""
    kinds: tuple[Kind, ...] = ("average size", "least size", "most size")
    for number, kind in zip(written.split(), kinds, strict=True):
        if number != "-":
            yield Claim(section, number, kind, left, right, subjects)


def claims() -> tuple[Claim, ...]:
    """Return the latencies, accuracies and sizes of sections 5.1 to 5.5: what evidence of the study's form holds."""
    return (*_rq1(), *_rq2(), *_rq3(), *_rq4(), *_rq5())


def _rq1() -> Iterator[Claim]:
    yield from singles("5.1", "45.46", "median", f"{ID}@mobile", subjects=("duc",))
    yield from singles("5.1", "5.64 3.96 23.64", "median", f"{ID}@edge", subjects=BUT_FCN)
    yield from singles("5.1", "17.61 17.61 3.76 28.61", "median", f"{ID}@cloud")
    yield from singles("5.1", "3.12 4.43 1.21", "one", f"{ID}@edge", f"{ID}@cloud", BUT_FCN)
    yield from factors("5.1", "1.83 - -", f"{ID}@edge", f"{ID}@mobile")
    yield from singles("5.1", "3.30 2.33 15.10 21.81", "seconds", f"{ID}@edge", f"{ID}@mobile")
    yield from singles("5.1", "8.52", "seconds", f"{ID}@cloud", f"{ID}@edge", ("fcn",))
    yield from singles("5.1", "23.62", "seconds", f"{ID}@cloud", f"{ID}@mobile", ("fcn",))


def _rq2() -> Iterator[Claim]:
    yield from factors("5.2", "1.17 1.15 1.19", f"{Q}@mobile", f"{ID}@mobile", RES)
    yield from factors("5.2", "1.27 1.17 1.37", f"{Q}@mobile", f"{ID}@mobile", SEG)
    yield from factors("5.2", "1.48 1.20 1.64", f"{Q}@edge", f"{ID}@edge")
    yield from singles("5.2", "2.0e-247", "p", f"{Q}@cloud", f"{ID}@cloud", ("duc",))
    yield from sizes("5.2", "4 - -", ID, Q)
    yield from drops("5.2", "0.05 0.38 0.16 7.6e-6 0.0125", ID, Q)
    yield from factors("5.2", "2.60 1.97 3.06", f"{Q}@edge", f"{Q}@mobile")
    # The study averages over all four, of which FCN is the other way round.
    yield from factors("5.2", "3.44 - -", f"{Q}@edge", f"{Q}@cloud")
    yield from factors("5.2", "- 1.58 6.61", f"{Q}@edge", f"{Q}@cloud", BUT_FCN)
    yield from singles("5.2", "1.97", "one", f"{Q}@cloud", f"{Q}@edge", ("fcn",))


def _rq3() -> Iterator[Claim]:
    yield from factors("5.3", "1.15 1.05 1.25", f"{E}@mobile", f"{ID}@mobile")
    yield from factors("5.3", "1.21 1.08 1.32", f"{E}@edge", f"{ID}@edge")
    yield from sizes("5.3", "- 1.15 1.27", ID, E)
    yield from factors("5.3", "1.44 1.42 1.45", f"{Q}@mobile", f"{E}@mobile", RES)
    yield from factors("5.3", "1.18 1.05 1.31", f"{Q}@mobile", f"{E}@mobile", SEG)
    yield from factors("5.3", "1.23 1.03 1.51", f"{Q}@edge", f"{E}@edge")
    yield from sizes("5.3", "- 3.08 -", Q, E)
    yield from drops("5.3", "2.53 11.56 0.38 7.6e-6 0.0125", ID, E)
    yield from drops("5.3", "2.35 11.21 0.38", Q, E)
    yield from factors("5.3", "1.92 1.69 2.29", f"{E}@edge", f"{E}@mobile")
    yield from factors("5.3", "2.90 - -", f"{E}@edge", f"{E}@cloud")
    yield from factors("5.3", "- 1.40 5.91", f"{E}@edge", f"{E}@cloud", BUT_FCN)
    yield from singles("5.3", "3.03", "one", f"{E}@cloud", f"{E}@edge", ("fcn",))


def _rq4() -> Iterator[Claim]:
    yield from factors("5.4", "9.37 1.37 24.17", f"{P}@{ME}", f"{P}@{EC}")
    yield from factors("5.4", "9.86 1.74 24.95", f"{P}@{ME}", f"{P}@{MC}")
    yield from factors("5.4", "- 1.03 1.26", f"{P}@{EC}", f"{P}@{MC}")
    yield from factors("5.4", "1.63 1.26 2.02", f"{ID}@edge", f"{P}@{ME}")
    # Over all four again, although DUC is the other way round.
    yield from factors("5.4", "1.13 - -", f"{P}@{ME}", f"{ID}@mobile")
    yield from factors("5.4", "- 1.11 1.26", f"{P}@{ME}", f"{ID}@mobile", ALL[:3])
    yield from singles("5.4", "1.05", "one", f"{P}@{ME}", f"{ID}@mobile", ("duc",))
    yield from factors("5.4", "2.85 2.18 3.52", f"{P}@{ME}", f"{ID}@cloud", RES)
    yield from factors("5.4", "1.65 1.58 1.73", f"{P}@{EC}", f"{ID}@cloud", RES)
    yield from factors("5.4", "1.36 1.25 1.48", f"{P}@{MC}", f"{ID}@cloud", RES)
    yield from factors("5.4", "3.84 1.67 6.01", f"{P}@{ME}", f"{ID}@cloud", SEG)
    yield from factors("5.4", "49.98 40.38 59.59", f"{P}@{EC}", f"{ID}@cloud", SEG)
    yield from factors("5.4", "52.14 41.68 62.60", f"{P}@{MC}", f"{ID}@cloud", SEG)
    yield from factors("5.4", "1.96 1.67 2.35", f"{E}@edge", f"{P}@{ME}")
    yield from factors("5.4", "2.41 1.87 2.44", f"{Q}@edge", f"{P}@{ME}")


def _rq5() -> Iterator[Claim]:
    yield from factors("5.5", "1.45 1.29 1.62", f"{QE}@mobile", f"{ID}@mobile", SEG)
    yield from factors("5.5", "1.13 - -", f"{QE}@mobile", f"{Q}@mobile", SEG)
    yield from factors("5.5", "- 1.09 1.28", f"{QE}@mobile", f"{Q}@mobile")
    yield from factors("5.5", "1.35 1.16 1.54", f"{QE}@mobile", f"{E}@mobile", SEG)
    yield from singles("5.5", "1.07 1.05", "one", f"{QE}@mobile", f"{ID}@mobile", RES)
    yield from singles("5.5", "1.11 1.33", "one", f"{QE}@mobile", f"{E}@mobile", RES)
    yield from factors("5.5", "1.75 1.36 1.97", f"{QE}@edge", f"{ID}@edge")
    yield from factors("5.5", "1.17 1.13 1.20", f"{QE}@edge", f"{Q}@edge")
    yield from factors("5.5", "1.45 1.17 1.82", f"{QE}@edge", f"{E}@edge")
    yield from sizes("5.5", "- 4.61 5.04", ID, QE)
    yield from sizes("5.5", "- 3.90 3.98", E, QE)
    yield from singles("5.5", "8.9e-221", "p", f"{QE}@cloud", f"{ID}@cloud", ("duc",))
    yield from singles("5.5", "6.8e-10", "p", f"{QE}@cloud", f"{Q}@cloud", ("duc",))
    yield from singles("5.5", "1.5e-196", "p", f"{QE}@cloud", f"{E}@cloud", ("duc",))
    yield from drops("5.5", "2.62 12.41", ID, QE)
    yield from drops("5.5", "2.56 12.02 medium 7.6e-6 0.0125", Q, QE)
    yield from drops("5.5", "0.09 1.66 medium 7.6e-6 0.0125", E, QE)
    yield from factors("5.5", "2.63 2.03 2.90", f"{QE}@edge", f"{QE}@mobile")
    yield from factors("5.5", "3.89 - -", f"{QE}@edge", f"{QE}@cloud")
    yield from factors("5.5", "- 1.77 7.69", f"{QE}@edge", f"{QE}@cloud", BUT_FCN)
    yield from singles("5.5", "1.93", "one", f"{QE}@cloud", f"{QE}@edge", ("fcn",))
    yield from factors("5.5", "8.51 1.73 15.65", f"{QEP}@{ME}", f"{QEP}@{EC}")
    yield from factors("5.5", "9.04 2.21 16.20", f"{QEP}@{ME}", f"{QEP}@{MC}")
    yield from factors("5.5", "- 1.04 1.28", f"{QEP}@{EC}", f"{QEP}@{MC}")
    yield from factors("5.5", "2.03 1.85 1.94", f"{QE}@edge", f"{QEP}@{ME}")
    yield from factors("5.5", "1.29 1.09 1.47", f"{QEP}@{ME}", f"{QE}@mobile")
    yield from factors("5.5", "3.41 3.12 3.70", f"{QEP}@{ME}", f"{QE}@cloud", RES)
    yield from factors("5.5", "1.82 1.80 1.84", f"{QEP}@{EC}", f"{QE}@cloud", RES)
    yield from factors("5.5", "1.44 1.40 1.48", f"{QEP}@{MC}", f"{QE}@cloud", RES)
    yield from factors("5.5", "2.39 1.04 3.74", f"{QEP}@{ME}", f"{QE}@cloud", SEG)
    yield from factors("5.5", "36.92 15.28 58.57", f"{QEP}@{EC}", f"{QE}@cloud", SEG)
    yield from factors("5.5", "38.28 15.91 60.65", f"{QEP}@{MC}", f"{QE}@cloud", SEG)
    yield from factors("5.5", "1.17 1.00 1.35", f"{ID}@edge", f"{QEP}@{ME}")
    yield from factors("5.5", "1.72 1.61 1.88", f"{Q}@edge", f"{QEP}@{ME}")
    yield from factors("5.5", "1.42 1.24 1.59", f"{E}@edge", f"{QEP}@{ME}")
    yield from factors("5.5", "1.39 1.04 1.60", f"{QEP}@{ME}", f"{P}@{ME}")
