"""Every place where a graph can be cut in two, by tensors that everything passes through together.

A cut is a set of tensors: one separator between regions, or several tensors inside a region. It is a *paper* cut when
each of its tensors lies on a branch of its own: none of them is computed from another, so that no identity branch of a
residual block is cut (paper, section 4.5.4). Sets of three and more are the live sets along the order of the nodes.

Values of shape nodes cross a cut beside them (`Sides`): a few integers, computed from the shapes of tensors before it.
A model may compute a shape per block, or read one shape in every block, and have a cut after each. So values are
grouped by the Shape nodes behind them, and a cut looks only at groups whose Shape nodes it may part from their readers.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from onnx import TensorProto

from runner.graph.runtime import SERVED_TYPES
from runner.graph.structure import Region, RegionLayout, Role, Structure, is_control_flow

# Pairs cost the square of a region; in larger ones only the live sets along the order of the nodes are tried.
_LARGEST_REGION = 256
_LARGEST_SET = 8
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "PRelu"})


@dataclass(frozen=True)
class CutPlace:
    """A valid cut; the head is the positions before `start` plus the bits of `inside` from there on.

    `border` says that it lies between blocks that other tensors pass by, `carries_input`, that the head hands on an
    input of the model as it is.
    """

    tensors: tuple[str, ...]
    start: int
    inside: int
    paper: bool
    head_bytes: int
    tail_bytes: int
    border: bool = False
    carries_input: bool = False

    def in_head(self, position: int) -> bool:
        """Return whether the data node at this position of `Structure.data` runs in the head."""
        return position < self.start or bool(self.inside >> (position - self.start) & 1)


def find_cuts(structure: Structure, layout: RegionLayout, borders: Collection[int] = ()) -> list[CutPlace]:
    """Return all valid cuts, the best balanced first; of equally balanced ones, those of fewer tensors first.

    Cuts that hand on an input of the model come last. `borders` are the positions between blocks that tensors pass by.
    """
    finder = _CutFinder(structure, layout, frozenset(borders))
    cuts: dict[frozenset[str], CutPlace] = {}
    for region in layout.regions:
        for cut in finder.cuts_of(region):
            earlier = cuts.get(frozenset(cut.tensors))
            # A live set and a pair may be the same tensors; the reading under which no branch is cut counts.
            if earlier is None or (cut.paper and not earlier.paper):
                cuts[frozenset(cut.tensors)] = cut
    return sorted(
        cuts.values(),
        key=lambda cut: (cut.carries_input, abs(cut.head_bytes - cut.tail_bytes), len(cut.tensors)),
    )


class _CutFinder:
    """The enumeration of cuts, with the bytes on either side."""

    def __init__(self, structure: Structure, layout: RegionLayout, borders: frozenset[int]) -> None:
        self._structure = structure
        self._layout = layout
        self._borders = borders
        self._cuttable_names: dict[str, str | None] = {}
        count = len(structure.data)
        # Prefix sums: an initializer belongs to a head from its first user on and to a tail up to its last, so that the
        # bytes on either side of a position are two look-ups.
        ending, beginning = [0] * (count + 1), [0] * (count + 1)
        for name, users in layout.users.items():
            size = structure.tensor_bytes.get(name, 0)
            beginning[users[0]] += size
            ending[users[-1]] += size
        self._head, self._tail, self._own = [0], [0], [0]
        for position in range(count):
            self._head.append(self._head[-1] + beginning[position])
            self._tail.append(self._tail[-1] + ending[position])
            self._own.append(self._own[-1] + layout.own_bytes[position])

    def cuts_of(self, region: Region) -> Iterator[CutPlace]:
        """Yield the cut at the region's end and those inside the region."""
        if region.result is not None:
            whole = (1 << (region.end - region.start)) - 1
            yield from self._cut(region, whole, [region.result], paper=True)
        size = region.end - region.start
        if size > 1:
            yield from self._swept(region)
        if 1 < size <= _LARGEST_REGION:
            yield from self._paired(region)

    def _cut(
        self,
        region: Region,
        inside: int,
        tensors: Iterable[str],
        *,
        paper: bool,
        border: bool = False,
        handed_on: frozenset[str] = frozenset(),
    ) -> Iterator[CutPlace]:
        names = [name if name in handed_on else self._remembered(name) for name in dict.fromkeys(tensors)]
        # With nothing but inputs to hand on, the head would compute nothing.
        if None in names or handed_on.issuperset(names):
            return
        chosen = tuple(dict.fromkeys(name for name in names if name is not None))
        head, tail = self._bytes(region, inside)
        yield CutPlace(chosen, region.start, inside, paper, head, tail, border, bool(handed_on))

    def _remembered(self, name: str) -> str | None:
        """Return the tensor to cut for this one; a mask has many readers, and is asked about at every cut."""
        if name not in self._cuttable_names:
            self._cuttable_names[name] = self._cuttable(name)
        return self._cuttable_names[name]

    def _cuttable(self, name: str) -> str | None:
        """Return the tensor to cut for this one, or None: a QDQ group is cut only at its quantized tensor."""
        structure = self._structure
        index = structure.producer.get(name)
        # At an input the head would compute nothing; at an output it would give a part of the answer itself.
        if index is None or name in structure.results or name in structure.merged:
            return None
        node, tensor_type = structure.nodes[index], structure.types.get(name)
        if node.op_type == "DequantizeLinear":
            return self._cuttable(node.input[0])
        readers = [structure.nodes[user] for user in structure.consumers.get(name, ())]
        # ONNX Runtime drops a Dropout between two nodes, and lets it draw where it reads an input or gives an output.
        if any(map(structure.randomness.is_training, (*readers, node))):
            return None
        after = {reader.op_type for reader in readers}
        if (
            tensor_type is None
            or tensor_type.dims is None
            or tensor_type.elem_type not in SERVED_TYPES
            # A float that becomes uint8 crosses after that. DynamicQuantizeLinear gives three tensors instead of one.
            or "QuantizeLinear" in after
        ):
            return None
        # The runtime folds a BatchNorm into the convolution before it; apart, they compute something else.
        if node.op_type in _CONVOLUTIONS and "BatchNormalization" in after:
            return None
        # An activation is fused into what precedes it and is as large after as before: cut after it.
        return None if len(after) == 1 and after <= _ACTIVATIONS else name

    def _can_be_handed_on(self, name: str) -> bool:
        """Return whether the head can give an input of the model as it is, for the tail to read it."""
        tensor_type = self._structure.types.get(name)
        return (
            name in self._structure.inputs
            and name not in self._structure.results
            and tensor_type is not None
            and (tensor_type.dims is not None or name in self._structure.file.assumed_shapes)
            and tensor_type.elem_type in SERVED_TYPES
        )

    def _bytes(self, region: Region, inside: int) -> tuple[int, int]:
        """Sum the bytes of head and tail; an initializer that both use counts in both."""
        if inside & (inside + 1) == 0:  # everything up to a position
            end = region.start + inside.bit_length()
            head, tail, own = self._head[end], self._tail[-1] - self._tail[end], self._own[end]
        else:
            head, tail = self._head[region.start], self._tail[-1] - self._tail[region.end]
            own = self._own[region.start]
            for name in {
                name for initializer in self._layout.initializers[region.start : region.end] for name in initializer
            }:
                in_head, in_tail = self._sides(region, inside, name)
                head += in_head
                tail += in_tail
            positions = range(region.start, region.end)
            own += sum(self._layout.own_bytes[p] for p in positions if inside >> (p - region.start) & 1)
        return head + own, tail + self._own[-1] - own

    def _sides(self, region: Region, inside: int, name: str) -> tuple[int, int]:
        """Return what an initializer of the region adds to head and tail beyond the sums at the region's borders."""
        size, users = self._structure.tensor_bytes.get(name, 0), self._layout.users[name]
        within = [user - region.start for user in users if region.start <= user < region.end]
        in_head = any(inside >> bit & 1 for bit in within)
        in_tail = not all(inside >> bit & 1 for bit in within)
        counted_in_head = users[0] < region.start
        counted_in_tail = users[-1] >= region.end
        return size * (in_head and not counted_in_head), size * (in_tail and not counted_in_tail)

    def _swept(self, region: Region) -> Iterator[CutPlace]:
        """Yield the live sets that the order of the nodes passes through inside a region."""
        inner = _RegionMasks(self._structure, region)
        alive = set(region.entries)
        for number in range(region.end - region.start - 1):
            inside = (2 << number) - 1
            alive.update(inner.writes[number])
            alive = {name for name in alive if inner.readers[name] & ~inside}
            # A single tensor ends its region, and `cuts_of` has yielded that cut.
            if 1 < len(alive) <= _LARGEST_SET:
                yield from self._cut(
                    region,
                    inside,
                    sorted(alive),
                    paper=inner.apart(alive),
                    border=region.start + number + 1 in self._borders,
                    handed_on=frozenset(filter(self._can_be_handed_on, alive)),
                )

    def _paired(self, region: Region) -> Iterator[CutPlace]:
        """Yield the pairs of nodes whose outputs together carry everything that passes on."""
        inner = _RegionMasks(self._structure, region)
        count = region.end - region.start
        for first in range(count):
            alone = inner.ancestors[first] | 1 << first
            crossing = inner.crossing(alone)
            if len(crossing) == 2:
                yield from self._cut(region, alone, crossing, paper=False)
            for second in range(first + 1, count):
                together = alone | inner.ancestors[second] | 1 << second
                # Whatever reads what the two are computed from must lie in the head, or a third tensor would cross.
                if inner.ancestors[second] >> first & 1 or (inner.needs[first] | inner.needs[second]) & ~together:
                    continue
                yield from self._cut(region, together, inner.crossing(together), paper=True)


class _RegionMasks:
    """A region's nodes as bits: which are computed from which, and which need which."""

    def __init__(self, structure: Structure, region: Region) -> None:
        self._entries = region.entries
        indices = structure.data[region.start : region.end]
        bit = {index: number for number, index in enumerate(indices)}
        # One bit more than there are nodes stands for every reader outside the region.
        beyond = 1 << len(indices)
        self.writes = [structure.writes[index] for index in indices]
        self.readers: dict[str, int] = {}
        for name in (*region.entries, *(name for names in self.writes for name in names)):
            users = [user for user in structure.consumers.get(name, ()) if structure.roles[user] is Role.DATA]
            mask = sum(1 << bit[user] for user in users if user in bit)
            outside = name in structure.results or any(user not in bit for user in users)
            self.readers[name] = mask | (beyond if outside else 0)
        entry_readers = 0
        for name in region.entries:
            entry_readers |= self.readers[name]
        self.ancestors: list[int] = []
        self.needs: list[int] = []
        self._sources = {name: number for number, names in enumerate(self.writes) for name in names}
        for index in indices:
            before, needs = 0, entry_readers
            for name in structure.reads[index]:
                source = bit.get(structure.producer.get(name, -1))
                if source is not None:
                    before |= self.ancestors[source] | 1 << source
                    needs |= self.needs[source]
                    for sibling in self.writes[source]:
                        needs |= self.readers[sibling]
            self.ancestors.append(before)
            self.needs.append(needs)

    def crossing(self, inside: int) -> list[str]:
        """Return the tensors of the head, the region's entries included, that the rest still needs."""
        names = [*self._entries, *(name for number in _bits(inside) for name in self.writes[number])]
        return [name for name in names if self.readers[name] & ~inside]

    def apart(self, crossing: Iterable[str]) -> bool:
        """Return whether no crossing tensor is computed from another."""
        sources = [self._sources.get(name) for name in crossing]
        edge = [source for source in sources if source is not None]
        return len(edge) == len(sources) and not any(self.ancestors[a] >> b & 1 for a in edge for b in edge)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


# Blocks hold 8 channels on AVX2 and 16 on AVX-512; whole blocks of 16 are whole blocks of 8.
_BLOCK_CHANNELS = 16
_ADDITIONS = frozenset({"Add", "Sum"})
_FUSED_WITH_ADDITION = frozenset({"Conv", "MatMul", "Gemm"})


def is_exact(structure: Structure, cut: Sequence[str]) -> bool:
    """Return whether head and tail are expected to compute the same bits as the whole."""
    if any(structure.types[name].elem_type == TensorProto.FLOAT16 for name in cut):
        return False  # ONNX Runtime computes in single precision on CPUs: only a cut rounds to half
    floats = [name for name in cut if structure.types[name].elem_type == TensorProto.FLOAT]
    if any(_is_fused_away(structure, name) or _is_beside_control_flow(structure, name) for name in floats):
        return False
    maps = [dims for name in floats if (dims := structure.types[name].dims) is not None and len(dims) == 4]
    if maps and not structure.possibly_infinite.isdisjoint(floats):
        return False  # without an identity pooling, the effect of the optimiser on the tail is unknown
    if len(maps) > 1 and any(isinstance(size, str) for dims in maps for size in dims):
        return False  # two inputs of the tail, which are not known to match
    return all(isinstance(dims[1], int) and dims[1] % _BLOCK_CHANNELS == 0 for dims in maps)


def _is_fused_away(structure: Structure, name: str) -> bool:
    """Return whether the whole model computes this tensor only within the addition or normalization that follows."""
    producer, users = structure.producer.get(name), structure.consumers.get(name, ())
    # Both become one SkipLayerNormalization, whose sums are rounded otherwise.
    if producer is not None and structure.nodes[producer].op_type in _ADDITIONS and users:
        return all(structure.nodes[user].op_type == "LayerNormalization" for user in users)
    if not _is_weighted(structure, name):
        return False
    for user in users:
        node = structure.nodes[user]
        if node.op_type in _ADDITIONS and name == next(read for read in node.input if _is_weighted(structure, read)):
            return True
    return False


def _is_beside_control_flow(structure: Structure, name: str) -> bool:
    """Return whether control flow gives or reads a tensor: of a known condition the branch replaces the node."""
    beside = [*structure.consumers.get(name, ()), structure.producer.get(name, -1)]
    return any(index >= 0 and is_control_flow(structure.nodes[index]) for index in beside)


def _is_weighted(structure: Structure, name: str) -> bool:
    """Return whether a convolution or matrix product makes this tensor, with or without a folded BatchNorm."""
    index = structure.producer.get(name)
    if index is not None and structure.nodes[index].op_type == "BatchNormalization":
        index = structure.producer.get(structure.nodes[index].input[0])
    return index is not None and structure.nodes[index].op_type in _FUSED_WITH_ADDITION


@dataclass
class _ValueGroup:
    """Shape values behind which are the same Shape nodes.

    `sources` has the output of each Shape node with the tensor that it reads, `first` is the position of the first node
    that gives such a tensor (-1 for an input of the model). `uses` are the places where data nodes read the values:
    number of the use, position, name.
    """

    sources: dict[str, str]
    first: int
    uses: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The last position at which a value is read."""
        return self.uses[-1][1]

    @cached_property
    def _last_positions(self) -> list[int]:
        """The last position at which each value is read, in order."""
        return sorted({name: position for _, position, name in self.uses}.values())

    def read_from(self, position: int) -> int:
        """Return how many of the values are read at this position or later."""
        return len(self._last_positions) - bisect_left(self._last_positions, position)

    def used_in_tail(self, place: CutPlace) -> list[tuple[int, str]]:
        """Return the uses in the tail of a cut: number and name."""
        start = bisect_left(self.uses, place.start, key=lambda use: use[1])
        return [(number, name) for number, position, name in self.uses[start:] if not place.in_head(position)]

    def last_in_tail(self, place: CutPlace) -> list[tuple[int, str]]:
        """Return the last of the uses in the tail, if there are any."""
        for number, position, name in reversed(self.uses):
            if position < place.start:
                break
            if not place.in_head(position):
                return [(number, name)]
        return []


class Sides:
    """The shape nodes of a graph: where their values come from, and where data nodes read them."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._position = {index: position for position, index in enumerate(structure.data)}
        self._uses = [
            (position, name)
            for position, index in enumerate(structure.data)
            for name in structure.reads[index]
            if structure.role_of(name) is Role.SHAPE
        ]
        # Outputs are given by the tail, whatever computes them.
        self._uses += [
            (len(structure.data), name) for name in structure.outputs if structure.role_of(name) is Role.SHAPE
        ]
        self._sources_by_name: dict[str, dict[str, str]] = {}

    def crossing(self, place: CutPlace) -> tuple[str, ...]:
        """Return the shape values the tail lacks: late ones or the Shape nodes' own outputs, whichever are fewer.

        The Shape nodes' own outputs are integers; late values of another or an unknown type do not cross.
        """
        parted = [group for group in self._parted(place) if not self._is_in_tail(place, group)]
        # All that a group adds to the Shape nodes' outputs is known from one of its values.
        uses = [use for group in parted for use in (self._of_mixed(place, group) or group.last_in_tail(place))]
        late, early = self._walked(place, uses)
        head_end = place.start + place.inside.bit_length()
        if sum(group.read_from(head_end) for group in parted if not self._of_mixed(place, group)) <= len(early):
            late, early = self._walked(place, (use for group in parted for use in group.used_in_tail(place)))
            if len(late) <= len(early) and all(map(self._is_served, late)):
                return tuple(late)
        return tuple(early)

    def _walked(self, place: CutPlace, uses: Iterable[tuple[int, str]]) -> tuple[dict[str, None], dict[str, None]]:
        """Return the late values that these uses need, and the outputs of the Shape nodes behind them."""
        pending = [name for _, name in sorted(uses)]
        late: dict[str, None] = {}
        early: dict[str, None] = {}
        visited: set[str] = set()
        while pending:
            name = pending.pop()
            if name in visited:
                continue
            visited.add(name)
            sources = self._sources(name)
            if all(self._in_tail(place, tensor) for tensor in sources.values()):
                continue
            if all(not self._in_tail(place, tensor) for tensor in sources.values()):
                late[name] = None
                early |= dict.fromkeys(sources)
            else:
                pending += [read for read in self._reads(name) if self._structure.role_of(read) is Role.SHAPE]
        return late, early

    def _parted(self, place: CutPlace) -> list[_ValueGroup]:
        """Return the groups with a Shape node before a place in the head and a reader that may be in the tail."""
        # Of the positions in the head, only those at which a group starts: a region may be the whole graph.
        first = bisect_left(self._starts, place.start)
        behind = bisect_left(self._starts, place.start + place.inside.bit_length())
        inside = self._starts[first:behind]
        groups = [*self._open_at.get(place.start, ()), *(group for p in inside for group in self._starting[p])]
        return [group for group in groups if group.last >= place.start]

    def _is_in_tail(self, place: CutPlace, group: _ValueGroup) -> bool:
        return all(self._in_tail(place, tensor) for tensor in group.sources.values())

    def _of_mixed(self, place: CutPlace, group: _ValueGroup) -> list[tuple[int, str]]:
        """Return the uses in the tail of a group whose Shape nodes are on both sides; none of another group."""
        mixed = len({self._in_tail(place, tensor) for tensor in group.sources.values()}) > 1
        return group.used_in_tail(place) if mixed else []

    @cached_property
    def _starting(self) -> dict[int, list[_ValueGroup]]:
        """The groups by the position of the first node whose shape they need."""
        groups: dict[frozenset[str], _ValueGroup] = {}
        for number, (position, name) in enumerate(self._uses):
            sources = self._sources(name)
            key = frozenset(sources)
            if key not in groups:
                groups[key] = _ValueGroup(sources, min(self._given_at(tensor) for tensor in sources.values()))
            groups[key].uses.append((number, position, name))
        starting: dict[int, list[_ValueGroup]] = {}
        for group in groups.values():
            starting.setdefault(group.first, []).append(group)
        return starting

    @cached_property
    def _starts(self) -> list[int]:
        """The positions at which groups start, in order."""
        return sorted(self._starting)

    @cached_property
    def _open_at(self) -> dict[int, Sequence[_ValueGroup]]:
        """By position: the groups that begin before it and are read there or later; absent where there are none."""
        open_groups = self._starting.get(-1, [])
        opened: dict[int, Sequence[_ValueGroup]] = {}
        for position in range(len(self._structure.data) + 1):
            open_groups = [group for group in open_groups if group.last >= position]
            if open_groups:
                opened[position] = open_groups
            open_groups = [*open_groups, *self._starting.get(position, ())]
        return opened

    def _given_at(self, tensor: str) -> int:
        """Return the position of the node that gives a tensor; -1 for an input."""
        return self._position.get(self._structure.producer.get(tensor, -1), -1)

    def read_from(self, span: range, *, beyond: int) -> bool:
        """Return whether a shape inside these data nodes is used from position `beyond` on.

        The shape of the last result before `beyond` does not count: its readers will read the shape of its replacement.
        """
        results = self._structure.writes[self._structure.data[beyond - 1]]
        return any(
            used >= beyond and tensor not in results
            for position in span
            for used, tensor in self._shapes_used.get(position, ())
        )

    @cached_property
    def _shapes_used(self) -> dict[int, list[tuple[int, str]]]:
        """By position of a node: where data nodes use a shape of its outputs, and which output."""
        uses: dict[int, list[tuple[int, str]]] = {}
        for used, name in self._uses:
            for tensor in self._sources(name).values():
                source = self._position.get(self._structure.producer.get(tensor, -1))
                if source is not None:
                    uses.setdefault(source, []).append((used, tensor))
        return uses

    def _is_served(self, name: str) -> bool:
        tensor_type = self._structure.types.get(name)
        return tensor_type is not None and tensor_type.dims is not None and tensor_type.elem_type in SERVED_TYPES

    def _in_tail(self, place: CutPlace, tensor: str) -> bool:
        """Return whether the tail has this tensor: computed there, or received."""
        if tensor in place.tensors:
            return True
        source = self._position.get(self._structure.producer.get(tensor, -1))
        return source is not None and not place.in_head(source)

    def _sources(self, name: str) -> dict[str, str]:
        """Return the Shape nodes behind a shape value: their output, and the tensor whose shape they read."""
        if name in self._sources_by_name:
            return self._sources_by_name[name]
        structure = self._structure
        sources: dict[str, str] = {}
        waiting, seen = [name], {name}
        while waiting:
            current = waiting.pop()
            index = structure.producer[current]
            if structure.nodes[index].op_type in ("Shape", "Size"):
                sources[current] = structure.nodes[index].input[0]
                continue
            for read in structure.reads[index]:
                if structure.role_of(read) is Role.SHAPE and read not in seen:
                    seen.add(read)
                    waiting.append(read)
        self._sources_by_name[name] = sources
        return sources

    def _reads(self, name: str) -> tuple[str, ...]:
        return self._structure.reads[self._structure.producer[name]]
