"""What can be skipped in a model and where it can be cut: one analysis, for the passes and for reports."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path
from typing import Literal

from onnx import helper

from runner.graph.cuts import CutPlace, Sides, find_cuts, is_exact
from runner.graph.model_file import read_model
from runner.graph.repeated_blocks import RepeatedRun, Unit, divide_hidden, find_runs
from runner.graph.shapes import Dimension
from runner.graph.states import State
from runner.graph.structure import RegionLayout, Structure, is_weighty, lay_out, read_structure, with_late_branches

# Beyond this the other part holds less than a fifth, and one tier carries the model nearly alone.
LARGEST_SHARE = 4 / 5


def segment_name(nodes: Sequence[str], initializers: Sequence[str]) -> str:
    """Return the scope that the nodes share (`/layer4/layer4.1/Add` → `layer4.1`), else their weights', else a node."""
    scope = _scope(nodes, "/")
    if scope:
        *_, parent, last = ["", *scope.split("/")]
        # A name with a dot (`layer4.1`) says enough alone; `conv` needs the scope above it.
        return last if "." in last or not parent else f"{parent}/{last}"
    # Names with a colon are those that exporters make up (`onnx::Conv_497`); they name no layer.
    return _scope([name for name in initializers if "." in name and ":" not in name], ".") or nodes[0]


def _scope(names: Sequence[str], separator: str) -> str:
    """Return the longest common prefix that ends at a separator; a single name gives its own scope."""
    paths = [name.split(separator)[:-1] for name in names if name]
    if not paths:
        return ""
    common = takewhile(lambda components: len(set(components)) == 1, zip(*paths, strict=False))
    return separator.join(components[0] for components in common).strip(separator)


@dataclass(frozen=True)
class GraphTensor:
    """A tensor by name; a free dimension is written as the expression that computes it.

    `dtype` is NumPy's name (`float32`); `size_bytes` is None while a dimension is free.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...] | None
    size_bytes: int | None


@dataclass(frozen=True)
class Segment:
    """A stretch of the skeleton: a branching sub-graph, or the chain of nodes between two of them.

    `nodes` are names (or outputs, where a node has no name); `number` counts sub-graphs from the end, from 1, as the
    paper does, and is None for a chain.
    """

    name: str
    kind: Literal["chain", "sub-graph"]
    number: int | None
    nodes: tuple[str, ...]
    op_types: tuple[str, ...]
    entry: str | None
    result: str | None
    size_bytes: int


@dataclass(frozen=True)
class Block:
    """One repetition in a run: segments `[first, last]` of the skeleton."""

    name: str
    nodes: tuple[str, ...]
    entry: str
    result: str
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Run:
    """Consecutive sub-graphs of one structure whose input and output have one shape, in the order they run."""

    blocks: tuple[Block, ...]
    tensor: GraphTensor

    @property
    def size_bytes(self) -> int:
        return sum(block.size_bytes for block in self.blocks)


@dataclass(frozen=True)
class Exit:
    """An early exit past the last `count` blocks of a run: the readers of `result` read `entry` instead.

    `weight_bytes` is what matrices and kernels have in `saved_bytes`; it is 0 where all of them are used elsewhere too.
    """

    run: Run
    count: int
    entry: GraphTensor
    result: GraphTensor
    saved_bytes: int
    saved_share: float
    weight_bytes: int

    # Not stored: a run of many blocks has as many exits, and together they would hold the square of them.
    @property
    def blocks(self) -> tuple[Block, ...]:
        """The skipped blocks, in the order they run."""
        return self.run.blocks[-self.count :]


@dataclass(frozen=True)
class Cut:
    """A place to cut the model: `tensors` cross the link, and `side` with them: values of a Shape branch, and states.

    `segment` is the index of the segment that the cut follows or runs through; `crossing_bytes` is None while a
    dimension is free; `paper` says that no identity branch is cut, `border`, that only tensors that pass by all blocks
    are, and `carries_input`, that the head hands on an input of the model; `exact`, that ONNX Runtime optimises head
    and tail as it does the whole, so that they compute the same bits.
    """

    tensors: tuple[GraphTensor, ...]
    side: tuple[GraphTensor, ...]
    head_bytes: int
    tail_bytes: int
    paper: bool
    exact: bool
    segment: int
    inside_segment: bool
    border: bool = False
    carries_input: bool = False

    @property
    def even(self) -> bool:
        """Whether no part holds nearly all of the model."""
        return max(self.head_bytes, self.tail_bytes) <= LARGEST_SHARE * (self.head_bytes + self.tail_bytes)

    @property
    def balanced(self) -> bool:
        """Whether neither part is more than twice the other."""
        return max(self.head_bytes, self.tail_bytes) <= 2 * min(self.head_bytes, self.tail_bytes)

    @property
    def difference_bytes(self) -> int:
        return abs(self.head_bytes - self.tail_bytes)

    @property
    def crossing_bytes(self) -> int | None:
        sizes = [tensor.size_bytes for tensor in (*self.tensors, *self.side)]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True)
class GraphAnalysis:
    """The structure of a model file: its skeleton, runs, exits and cuts.

    Attributes
    ----------
    skeleton
        All data nodes, in order, as sub-graphs and the chains between them.
    runs
        Repeated runs, the last first.
    exits
        Possible early exits of every run: 1, 2, … blocks of it skipped, from its end.
    cuts
        Valid cuts, the best balanced first.
    control_flow
        Nodes with graphs of their own, as `If 'branch'`; nothing inside is skipped or cut.
    random_nodes
        Nodes that draw random numbers at each run, as `RandomNormal 'noise'`.
    states
        Inputs that take what outputs gave at the run before, with these outputs.
    unknown_tensors
        How many tensors between nodes have a type or shape that neither inference nor a run has shown.
    """

    path: Path
    size_bytes: int
    node_count: int
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    skeleton: tuple[Segment, ...]
    runs: tuple[Run, ...]
    exits: tuple[Exit, ...]
    cuts: tuple[Cut, ...]
    control_flow: tuple[str, ...]
    random_nodes: tuple[str, ...]
    states: tuple[State, ...]
    largest_initializer: str | None
    largest_initializer_bytes: int
    unknown_tensors: int

    @property
    def stream_inputs(self) -> tuple[GraphTensor, ...]:
        """The inputs that are no states."""
        states = {state.input for state in self.states}
        return tuple(tensor for tensor in self.inputs if tensor.name not in states)

    @property
    def results(self) -> tuple[GraphTensor, ...]:
        """The outputs that are no states."""
        states = {state.output for state in self.states}
        return tuple(tensor for tensor in self.outputs if tensor.name not in states)

    @property
    def sub_graphs(self) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.skeleton if segment.kind == "sub-graph")

    def place_of(self, cut: Cut) -> str:
        """Describe where a cut is: `at the start of sub-graph 9 from the end (layer3.17)`."""
        segment = self.skeleton[cut.segment]
        if segment.number is not None and cut.inside_segment:
            return f"inside sub-graph {segment.number} from the end ({segment.name})"
        following = next((later for later in self.skeleton[cut.segment + 1 :] if later.number is not None), None)
        if following is None:
            return f"in the chain at the end, after {cut.tensors[0].name}"
        return f"at the start of sub-graph {following.number} from the end ({following.name})"

    def best_cut(self, *, paper: bool = True) -> Cut | None:
        """Return the best balanced cut, a balanced exact one first; with `paper`, one that cuts no identity branch.

        Cuts of tensors that pass by all blocks, and those that hand on an input, count where no other one is even.
        """
        own = _best([cut for cut in self.cuts if (cut.paper or not paper) and not cut.carries_input])
        if own is not None and own.even:
            return own
        beside = [cut for cut in self.cuts if cut.paper or cut.border or not paper]
        even = _best(sorted((cut for cut in beside if cut.even), key=lambda cut: cut.difference_bytes))
        return even or own or (beside[0] if beside else None)


def _best(candidates: Sequence[Cut]) -> Cut | None:
    """Return the first of the cuts, sorted by balance, or the first that is exact where it is balanced."""
    # Equal bits spare an accuracy measurement and a doubt, which is worth a few bytes of balance.
    exact = (cut for cut in candidates if cut.exact and cut.balanced)
    return next(exact, candidates[0] if candidates else None)


def analyse(path: Path, *, sizes: Mapping[str, int] | None = None) -> GraphAnalysis:
    """Analyse a model file without loading its weights.

    Parameters
    ----------
    path
        An ONNX file, its external data beside it.
    sizes
        Values for free dimensions of the inputs, by name (`{"height": 640, "width": 640}`): byte counts of tensors
        then come out as numbers.

    Returns
    -------
    GraphAnalysis

    Raises
    ------
    ModelFileError
        When the file is not a readable, consistent ONNX model.

    Notes
    -----
    Takes milliseconds for hundreds of nodes and under a second for 5 000; memory holds the graph alone.

    References
    ----------
    Paper, sections 4.5.3 and 4.5.4, Algorithms 1 and 2.

    Examples
    --------
    >>> from runner.subjects.embedded.datasets import BUILTIN
    >>> analysis = analyse(BUILTIN / "fashion-resnet.onnx")
    >>> len(analysis.sub_graphs), [len(run.blocks) for run in analysis.runs]
    (14, [4, 4, 4])
    """
    return analyse_structure(read_structure(read_model(path), sizes=sizes))


def analyse_structure(structure: Structure) -> GraphAnalysis:
    """Analyse a graph that has been read already."""
    analyst = _Analyst(structure)
    analysis = analyst.analysis()
    # What the skipped blocks make of states is known in the order of the file alone.
    if analyst.runs or structure.states or not analysis.sub_graphs:
        return analysis
    late = _Analyst(with_late_branches(structure))
    if not late.runs:
        return analysis
    # Cuts stay those of the file's order, on which artifacts that were measured depend.
    return replace(late.analysis(), cuts=tuple(late.placed(cut) for cut in analysis.cuts))


class _Analyst:
    """The analysis under way: regions and positions become names and bytes."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._layout: RegionLayout = lay_out(structure)
        # A cut carries what passes by the blocks too, and so keeps to the regions of the whole graph.
        self.runs = find_runs(structure, self._layout)
        self._blocks = self._layout if self.runs else divide_hidden(structure, self._layout)
        if self._blocks is not self._layout:
            self.runs = find_runs(structure, self._blocks)
        self._sides = Sides(structure)
        self._position = {index: position for position, index in enumerate(structure.data)}
        self._first_used: list[list[tuple[int, int]]] = [[] for _ in structure.data]
        self._first_weights: list[list[tuple[int, int]]] = [[] for _ in structure.data]
        # Kept by the first node that uses an initializer, with the last: a stretch owns it only if both are inside.
        for name, users in self._layout.users.items():
            lifetime = (users[-1], structure.tensor_bytes.get(name, 0))
            self._first_used[users[0]].append(lifetime)
            if is_weighty(structure, name):
                self._first_weights[users[0]].append(lifetime)
        self._spans = self._segment_spans()
        self._segment_of = [index for index, span in enumerate(self._spans) for _ in span]
        self.skeleton = self._skeleton()

    def analysis(self) -> GraphAnalysis:
        structure, file = self._structure, self._structure.file
        runs = tuple(self._run(run) for run in self.runs)
        largest = max(structure.tensor_bytes, key=structure.tensor_bytes.__getitem__, default=None)
        return GraphAnalysis(
            path=file.path,
            size_bytes=file.size_bytes,
            node_count=len(structure.nodes),
            inputs=tuple(self._tensor(name) for name in structure.inputs),
            outputs=tuple(self._tensor(name) for name in structure.outputs),
            skeleton=self.skeleton,
            runs=runs,
            exits=tuple(exit_ for pair in zip(runs, self.runs, strict=True) for exit_ in self._exits(*pair)),
            cuts=tuple(self._cut(place) for place in find_cuts(structure, self._layout, self._borders())),
            control_flow=structure.control_flow,
            random_nodes=structure.random_nodes,
            states=structure.states,
            largest_initializer=largest,
            largest_initializer_bytes=structure.tensor_bytes[largest] if largest else 0,
            unknown_tensors=len(structure.unknown),
        )

    def placed(self, cut: Cut) -> Cut:
        """Return a cut that was found in another order of the nodes, with its place in this skeleton."""
        made = [
            self._structure.producer[tensor.name] for tensor in cut.tensors if tensor.name in self._structure.producer
        ]
        last = max((self._structure.positions[index] for index in made), default=0)
        segment = self._segment_of[last]
        return replace(cut, segment=segment, inside_segment=last != self._spans[segment].stop - 1)

    def _borders(self) -> list[int]:
        """Return the positions between blocks that tensors pass by; none where nothing does."""
        return [] if self._blocks is self._layout else [region.end for region in self._blocks.regions]

    def _segment_spans(self) -> list[range]:
        """Return the positions of each segment: one sub-graph each, neighbouring chains merged."""
        spans: list[range] = []
        chain = False
        for region in self._blocks.regions:
            if chain and not region.branching:
                spans[-1] = range(spans[-1].start, region.end)
            else:
                spans.append(range(region.start, region.end))
            chain = not region.branching
        return spans

    def _skeleton(self) -> tuple[Segment, ...]:
        branching = {region.start: region for region in self._blocks.regions if region.branching}
        entries = {region.start: region.entries for region in self._blocks.regions}
        results = {region.end: region.result for region in self._blocks.regions}
        # Counted down, because the paper numbers sub-graphs from the end of the model.
        left = len(branching)
        # A chain beside a sub-graph of the same scope may share its name; two sub-graphs may not.
        spans = [span for span in self._spans if span.start in branching]
        names = dict(zip((span.start for span in spans), self._names(spans), strict=True))
        segments = []
        for span in self._spans:
            number = left if span.start in branching else None
            left -= number is not None
            entry = entries[span.start]
            segments.append(
                Segment(
                    name=names.get(span.start) or self._name(span),
                    kind="chain" if number is None else "sub-graph",
                    number=number,
                    nodes=self._labels(span),
                    op_types=tuple(self._structure.nodes[self._structure.data[p]].op_type for p in span),
                    entry=entry[0] if len(entry) == 1 else None,
                    result=results[span.stop],
                    size_bytes=self._bytes(span),
                )
            )
        return tuple(segments)

    def _run(self, run: RepeatedRun) -> Run:
        # `find_runs` accepts only units with a branching region, after which the block is named.
        cores = [
            next(region for region in self._blocks.regions[unit.start : unit.end] if region.branching)
            for unit in run.units
        ]
        names = self._names([range(core.start, core.end) for core in cores])
        blocks = tuple(self._block(unit, name) for unit, name in zip(run.units, names, strict=True))
        return Run(blocks, self._tensor(run.units[0].entry))

    def _block(self, unit: Unit, name: str) -> Block:
        regions = self._blocks.regions[unit.start : unit.end]
        span = range(regions[0].start, regions[-1].end)
        return Block(
            name=name,
            nodes=self._labels(span),
            entry=unit.entry,
            result=unit.result,
            size_bytes=self._bytes(span),
            first=self._segment_of[span.start],
            last=self._segment_of[span.stop - 1],
        )

    def _exits(self, run: Run, repeated: RepeatedRun) -> Iterable[Exit]:
        """Yield the exits that skip one block, two, …, all of a run, if nothing else needs what the blocks compute."""
        regions = self._blocks.regions
        end = regions[repeated.units[-1].end - 1].end
        saved = weights = 0
        for count in range(1, len(run.blocks) + 1):
            unit = repeated.units[-count]
            span = range(regions[unit.start].start, regions[unit.end - 1].end)
            # A longer exit skips this block too, so none of them is possible either.
            if self._sides.read_from(span, beyond=end):
                return
            saved += self._bytes(span, end=end)
            weights += _owned(self._first_weights, span, end)
            entry, result = self._tensor(unit.entry), self._tensor(repeated.units[-1].result)
            share = saved / self._structure.file.size_bytes
            yield Exit(run, count, entry, result, saved, share, weights)

    def _cut(self, place: CutPlace) -> Cut:
        # The highest bit of `inside` is the last node of the head within this region.
        last = place.start + max(place.inside.bit_length() - 1, 0)
        segment = self._segment_of[last]
        tensors = tuple(self._tensor(name) for name in place.tensors)
        return Cut(
            tensors=tensors,
            side=tuple(self._tensor(name) for name in (*self._sides.crossing(place), *self._crossing_states(place))),
            head_bytes=place.head_bytes,
            tail_bytes=place.tail_bytes,
            paper=place.paper,
            exact=is_exact(self._structure, place.tensors),
            segment=segment,
            # Ends of blocks that a mask passes by are borders too, though two tensors cross them.
            inside_segment=bool(place.inside & (place.inside + 1)) or last != self._spans[segment].stop - 1,
            border=place.border,
            carries_input=place.carries_input,
        )

    def _crossing_states(self, place: CutPlace) -> Iterator[str]:
        """Yield the states that the tail reads or that the head computes: the tail gives them all."""
        structure, crossing = self._structure, set(place.tensors)
        needed = {
            state
            for state, readers in self._state_readers.items()
            if any(position >= place.start and not place.in_head(position) for position in readers)
        }
        for state in structure.states:
            made = self._position.get(structure.producer.get(state.output, -1))
            is_made = made is not None and place.in_head(made)
            for name, crosses in ((state.input, state.input in needed), (state.output, is_made)):
                if crosses and name not in crossing:
                    yield name

    @cached_property
    def _state_readers(self) -> Mapping[str, Sequence[int]]:
        """The positions at which each state is read; what is given without being read is read at the end."""
        structure = self._structure
        readers: dict[str, list[int]] = {}
        for position, index in enumerate(structure.data):
            for name in structure.reads[index]:
                for state in structure.states_behind.get(name, ()):
                    readers.setdefault(state, []).append(position)
        for name in structure.outputs:
            for state in structure.states_behind.get(name, ()):
                readers.setdefault(state, []).append(len(structure.data))
        return readers

    def _bytes(self, span: range, *, end: int | None = None) -> int:
        """Sum the bytes that only these nodes need; with `end`, only these and the nodes from there up to `end`."""
        end = span.stop if end is None else end
        total = sum(self._layout.own_bytes[position] for position in span)
        return total + _owned(self._first_used, span, end)

    def _labels(self, span: range) -> tuple[str, ...]:
        indices = [self._structure.data[position] for position in span]
        # ONNX does not require names of nodes; names of outputs are unique.
        return tuple(self._structure.nodes[i].name or next(iter(self._structure.writes[i]), "") for i in indices)

    def _names(self, spans: Sequence[range]) -> list[str]:
        """Name stretches of nodes; where several would have one name, each is called after its first layer."""
        names = [self._name(span) for span in spans]
        counts = Counter(names)
        return [self._first_layer(span) if counts[name] > 1 else name for name, span in zip(names, spans, strict=True)]

    def _first_layer(self, span: range) -> str:
        """Return the name of the first node that reads weights, or of the first node where none does."""
        weights = (
            any(is_weighty(self._structure, name) for name in self._layout.initializers[position]) for position in span
        )
        labels = self._labels(span)
        return next((label for label, reads in zip(labels, weights, strict=True) if reads), labels[0])

    def _name(self, span: range) -> str:
        """Name a stretch of nodes after them and their weights."""
        names = sorted({name for position in span for name in self._layout.initializers[position]})
        return segment_name(self._labels(span), names)

    def _tensor(self, name: str) -> GraphTensor:
        tensor_type = self._structure.types.get(name)
        if tensor_type is None or not tensor_type.elem_type:
            return GraphTensor(name, "unknown", tensor_type.dims if tensor_type else None, None)
        return GraphTensor(name, _dtype(tensor_type.elem_type), tensor_type.dims, tensor_type.size_bytes)


def _owned(first_used: Sequence[Sequence[tuple[int, int]]], span: range, end: int) -> int:
    """Sum the bytes of constants whose users all lie in the span or between it and `end`."""
    return sum(size for position in span for last, size in first_used[position] if last < end)


@cache
def _dtype(elem_type: int) -> str:
    try:
        return helper.tensor_dtype_to_np_dtype(elem_type).name
    # A type that this version of onnx does not know.
    except KeyError:
        return f"onnx type {elem_type}"
