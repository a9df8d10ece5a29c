"""The measuring loop (single stream, closed loop) on the client's tier: in-process or to another tier."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from tierserver import protocol
from tierserver.errors import CommandError, PeerError, TierError
from tierserver.messages import Codec, LinkProbe, Measure, MeasureResult, Probe, ProbeDirection, Sample, SamplePart
from tierserver.pipeline import Arrays, InferenceResult, Serving, Tier
from tierserver.transport import Arrivals, Connection, Peer


class InferenceTarget(Protocol):
    """Where the client sends encoded images: it answers with the final decoded outputs."""

    def infer(self, encoded: bytes) -> InferenceResult: ...

    def close(self) -> None: ...


class LocalTarget:
    """A part of this tier, without a network; it may have a next part elsewhere."""

    def __init__(self, tier: Tier, model: str) -> None:
        self._part = tier.find(model).part

    def infer(self, encoded: bytes) -> InferenceResult:
        return self._part.run((protocol.Tensor("image", None, (memoryview(encoded),)),))

    def close(self) -> None:
        """Do nothing: the part stays in service."""


class RemoteTarget:
    """A part of another tier, perhaps behind relays."""

    def __init__(self, own: str, url: str, model: str, codec: Codec) -> None:
        self._own = own
        self._peer = Peer(own, url)
        self._model = model
        self._codec = codec

    def infer(self, encoded: bytes) -> InferenceResult:
        started = time.perf_counter()
        body = protocol.encode_image_request(encoded, self._codec)
        encode_s = time.perf_counter() - started
        answer = self._peer.infer(self._model, body)
        own = SamplePart(self._own, 0.0, 0.0, 0.0, encode_s + answer.decode_s)
        return InferenceResult(answer.outputs, (own, *answer.parts), answer.links)

    def close(self) -> None:
        self._peer.close()


class Client:
    """The client on one tier; a target that was only warmed up stays open for its measurement."""

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._warm: _WarmTarget | None = None

    def measure(self, command: Measure, on_sample: Callable[[Sample], None]) -> MeasureResult:
        """Run the warm-up and the repetitions; each sample goes to `on_sample`, between two timed inferences."""
        # All inputs are read before the first pass, so that no latency contains the disk.
        inputs = _read_inputs(command)
        target = self._take(command)
        try:
            # Warm-up passes count up to -1, so that the samples of a measurement begin at 0.
            warmup = tuple(_passes(target, inputs, range(-command.warmup, 0), first=-command.warmup * len(inputs)))
            samples = 0
            for sample in _passes(target, inputs, range(command.repetitions), first=0):
                on_sample(sample)
                samples += 1
        # An interrupt counts too: half an exchange may be on the connection, which nothing may use again.
        except BaseException:
            target.close()
            raise
        if command.repetitions == 0:
            self._warm = _WarmTarget(target, command.model, command.url, command.codec, self._tier.serving)
        else:
            target.close()
        return MeasureResult(samples, warmup)

    def _take(self, command: Measure) -> InferenceTarget:
        """Return the target that a warm-up left open if it still matches this command; else a new one."""
        warm, self._warm = self._warm, None
        if warm is not None:
            key = (command.model, command.url, command.codec)
            # A `load` in between makes another Serving, and a local target would still hold a part of the former one.
            if (warm.model, warm.url, warm.codec) == key and warm.serving is self._tier.serving:
                return warm.target
            warm.target.close()
        return _target(self._tier, command)


@dataclass(frozen=True)
class _WarmTarget:
    """A target left open, and what it was opened for."""

    target: InferenceTarget
    model: str
    url: str | None
    codec: Codec
    serving: Serving


def _passes(
    target: InferenceTarget, inputs: Mapping[str, bytes], repetitions: range, *, first: int
) -> Iterator[Sample]:
    """Yield a sample of every input once per repetition; `first` numbers the first sample."""
    seq = first
    for repetition in repetitions:
        for input_id, encoded in inputs.items():
            yield _sample(target, seq, input_id, repetition, encoded)
            seq += 1


def output_digest(outputs: Arrays) -> str:
    """Hash names, types, shapes and bytes (SHA-256): equal exactly when the outputs are bit-identical."""
    digest = hashlib.sha256()
    for name in sorted(outputs):
        array = outputs[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _sample(target: InferenceTarget, seq: int, input_id: str, repetition: int, encoded: bytes) -> Sample:
    started = time.perf_counter()
    try:
        outcome = target.infer(encoded)
    except TierError as error:
        raise CommandError(f"input {input_id!r}: {error}") from error
    latency_s = time.perf_counter() - started
    # Hashed after the clock has stopped: the digest is a cost of measuring, not of the inference.
    digest = output_digest(outcome.outputs)
    return Sample(seq, input_id, repetition, latency_s, outcome.parts, outcome.links, digest)


def _target(tier: Tier, command: Measure) -> InferenceTarget:
    if command.url is None:
        return LocalTarget(tier, command.model)
    return RemoteTarget(tier.name, command.url, command.model, command.codec)


def _read_inputs(command: Measure) -> Mapping[str, bytes]:
    passes = (command.repetitions, command.warmup)
    if min(passes) < 0 or sum(passes) < 1 or not command.input_ids:
        raise CommandError("measure needs at least one input and one pass over them, and no negative counts")
    try:
        return {input_id: (Path(command.inputs_dir) / input_id).read_bytes() for input_id in command.input_ids}
    except OSError as error:
        raise CommandError(f"input {error.filename}: {error.strerror}; check the mount and input_ids") from error


_RTT_REPETITIONS = 5


def probe_link(command: Probe) -> LinkProbe:
    """Probe the link to the tier at the command's base URL."""
    up = _Payloads(command.small_bytes, command.large_bytes)
    down = _Payloads(
        up.small if command.down_small_bytes is None else command.down_small_bytes,
        up.large if command.down_large_bytes is None else command.down_large_bytes,
    )
    if not (0 <= up.small < up.large and 0 <= down.small < down.large) or command.repetitions < 1:
        raise CommandError("probe needs 0 <= small_bytes < large_bytes and at least one repetition")
    connection = Connection(command.url)
    try:
        return _probe(connection, up, down, command.repetitions)
    finally:
        connection.close()


@dataclass(frozen=True)
class _Payloads:
    """The bytes of a transfer in one direction: those of its start, which are not timed, and all."""

    small: int
    large: int


def _probe(connection: Connection, up: _Payloads, down: _Payloads, repetitions: int) -> LinkProbe:
    def send() -> ProbeDirection:
        answer = dict(json.loads(bytes(_checked(connection, "POST", f"/probe?small={up.small}", bytes(up.large)))))
        del answer["received_bytes"]
        return ProbeDirection.from_json(answer)

    def receive() -> ProbeDirection:
        arrivals = Arrivals()
        _checked(connection, "GET", f"/probe?bytes={down.large}", b"", arrivals)
        return arrivals.after(down.small)

    def empty() -> None:
        _checked(connection, "GET", "/probe?bytes=0", b"")

    empty()  # opens the connection
    rtt_s = median(_timed(empty) for _ in range(max(_RTT_REPETITIONS, repetitions)))
    return LinkProbe(_middle(send, repetitions), _middle(receive, repetitions), rtt_s)


def _middle(transfer: Callable[[], ProbeDirection], repetitions: int) -> ProbeDirection:
    """Repeat a transfer and return the one of the median rate, of two the slower one."""
    directions = sorted((transfer() for _ in range(repetitions)), key=lambda direction: direction.rate_bit_per_s)
    return directions[(repetitions - 1) // 2]


def _timed(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _checked(
    connection: Connection, method: str, path: str, body: bytes, arrivals: Arrivals | None = None
) -> memoryview:
    """Make one transfer and return the answer's body; raise PeerError where the tier refuses."""
    response = connection.request(method, path, pieces=(body,) if body else (), arrivals=arrivals)
    if response.status != 200:
        reason = bytes(response.body[:300]).decode("utf-8", "replace")
        raise PeerError(f"probe: {connection.base_url} answered {response.status}: {reason}", peer=connection.base_url)
    return response.body
