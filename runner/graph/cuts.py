"""Every place where a graph can be parted in two, by tensors that everything passes through together.

A cut is a set of tensors: one separator between regions, or several tensors inside a region. It is a *paper* cut when
each of its tensors lies on a branch of its own: none of them is computed from another, so that no identity branch of a
residual block is cut (paper, section 4.5.4). Sets of three and more are those the order of the nodes passes through.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnx import TensorProto

from runner.graph.regions import Layout, Region
from runner.graph.structure import Role, Structure

# Pairs cost the square of a region; beyond this only what the order of the nodes passes through is tried.
_LARGEST_REGION = 256
_LARGEST_SET = 8
_SERVED = frozenset(
    {TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE}
    | {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
    | {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}
)
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "PRelu"})
_QUANTIZERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True)
class CutPlace:
    """A valid cut; the head is the positions before `start` plus the bits of `inside` from there on."""

    tensors: tuple[str, ...]
    start: int
    inside: int
    paper: bool
    head_bytes: int
    tail_bytes: int

    def in_head(self, position: int) -> bool:
        """Whether the data node at this position of `Structure.data` runs in the head."""
        return position < self.start or bool(self.inside >> (position - self.start) & 1)


def find_cuts(structure: Structure, layout: Layout) -> list[CutPlace]:
    """All valid cuts, the best balanced first; of equally balanced ones, those of fewer tensors first."""
    finder = _Finder(structure, layout)
    found: dict[frozenset[str], CutPlace] = {}
    for region in layout.regions:
        for cut in finder.cuts_of(region):
            known = found.get(frozenset(cut.tensors))
            if known is None or (cut.paper and not known.paper):
                found[frozenset(cut.tensors)] = cut
    return sorted(found.values(), key=lambda cut: (abs(cut.head_bytes - cut.tail_bytes), len(cut.tensors)))


class _Finder:
    """Enumerates cuts and weighs them."""

    def __init__(self, structure: Structure, layout: Layout) -> None:
        self._structure = structure
        self._layout = layout
        count = len(structure.data)
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
        """The cut at the region's end and those inside it."""
        if region.result is not None:
            whole = (1 << (region.end - region.start)) - 1
            yield from self._cut(region, whole, [region.result], paper=True)
        size = region.end - region.start
        if size > 1:
            yield from self._swept(region)
        if 1 < size <= _LARGEST_REGION:
            yield from self._paired(region)

    def _cut(self, region: Region, inside: int, tensors: Iterable[str], *, paper: bool) -> Iterator[CutPlace]:
        names = [self._cuttable(name) for name in dict.fromkeys(tensors)]
        if not names or None in names:
            return
        chosen = tuple(dict.fromkeys(name for name in names if name is not None))
        head, tail = self._bytes(region, inside)
        yield CutPlace(chosen, region.start, inside, paper, head, tail)

    def _cuttable(self, name: str) -> str | None:
        """The tensor to cut for this one, or None: a QDQ group is cut at its quantized tensor alone."""
        structure = self._structure
        index = structure.producer.get(name)
        if index is None or name in structure.outputs:
            return None
        node, found = structure.nodes[index], structure.types.get(name)
        if node.op_type == "DequantizeLinear":
            return self._cuttable(node.input[0])
        after = {structure.nodes[user].op_type for user in structure.consumers.get(name, ())}
        if found is None or found.dims is None or found.elem_type not in _SERVED or after & _QUANTIZERS:
            return None
        # The runtime folds a BatchNorm into the convolution before it; apart, they compute something else.
        if node.op_type in _CONVOLUTIONS and "BatchNormalization" in after:
            return None
        # An activation is fused into what precedes it and is as large after as before: cut after it.
        return None if len(after) == 1 and after <= _ACTIVATIONS else name

    def _bytes(self, region: Region, inside: int) -> tuple[int, int]:
        """Bytes of head and tail; an initializer that both use counts in both."""
        if inside & (inside + 1) == 0:  # everything up to a position
            end = region.start + inside.bit_length()
            head, tail, own = self._head[end], self._tail[-1] - self._tail[end], self._own[end]
        else:
            head, tail = self._head[region.start], self._tail[-1] - self._tail[region.end]
            own = self._own[region.start]
            for name in {name for each in self._layout.initializers[region.start : region.end] for name in each}:
                in_head, in_tail = self._sides(region, inside, name)
                head += in_head
                tail += in_tail
            positions = range(region.start, region.end)
            own += sum(self._layout.own_bytes[p] for p in positions if inside >> (p - region.start) & 1)
        return head + own, tail + self._own[-1] - own

    def _sides(self, region: Region, inside: int, name: str) -> tuple[int, int]:
        """What an initializer of the region adds to head and tail beyond the sums at the region's borders."""
        size, users = self._structure.tensor_bytes.get(name, 0), self._layout.users[name]
        within = [user - region.start for user in users if region.start <= user < region.end]
        in_head = any(inside >> bit & 1 for bit in within)
        in_tail = not all(inside >> bit & 1 for bit in within)
        counted_in_head = users[0] < region.start
        counted_in_tail = users[-1] >= region.end
        return size * (in_head and not counted_in_head), size * (in_tail and not counted_in_tail)

    def _swept(self, region: Region) -> Iterator[CutPlace]:
        """The live sets that the order of the nodes passes through inside a region."""
        inner = _Inside(self._structure, region)
        alive = set(region.entries)
        for number in range(region.end - region.start - 1):
            inside = (2 << number) - 1
            alive.update(inner.writes[number])
            alive = {name for name in alive if inner.readers[name] & ~inside}
            if 1 < len(alive) <= _LARGEST_SET:
                yield from self._cut(region, inside, sorted(alive), paper=inner.apart(alive))

    def _paired(self, region: Region) -> Iterator[CutPlace]:
        """Two nodes whose outputs everything passes through together."""
        inner = _Inside(self._structure, region)
        count = region.end - region.start
        for first in range(count):
            alone = inner.ancestors[first] | 1 << first
            crossing = inner.crossing(alone)
            if len(crossing) == 2:
                yield from self._cut(region, alone, crossing, paper=False)
            for second in range(first + 1, count):
                together = alone | inner.ancestors[second] | 1 << second
                if inner.ancestors[second] >> first & 1 or (inner.needs[first] | inner.needs[second]) & ~together:
                    continue
                yield from self._cut(region, together, inner.crossing(together), paper=True)


class _Inside:
    """A region's nodes as bits: who is computed from whom, and who is needed by whom."""

    def __init__(self, structure: Structure, region: Region) -> None:
        self._entries = region.entries
        indices = structure.data[region.start : region.end]
        bit = {index: number for number, index in enumerate(indices)}
        beyond = 1 << len(indices)
        self.writes = [structure.writes[index] for index in indices]
        self.readers: dict[str, int] = {}
        for name in (*region.entries, *(name for names in self.writes for name in names)):
            users = [user for user in structure.consumers.get(name, ()) if structure.roles[user] is Role.DATA]
            mask = sum(1 << bit[user] for user in users if user in bit)
            outside = name in structure.outputs or any(user not in bit for user in users)
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
        """Tensors of the head, the region's entries included, that the rest still needs."""
        names = [*self._entries, *(name for number in _bits(inside) for name in self.writes[number])]
        return [name for name in names if self.readers[name] & ~inside]

    def apart(self, crossing: Iterable[str]) -> bool:
        """Whether no crossing tensor is computed from another."""
        sources = [self._sources.get(name) for name in crossing]
        edge = [source for source in sources if source is not None]
        return len(edge) == len(sources) and not any(self.ancestors[a] >> b & 1 for a in edge for b in edge)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
