"""The measuring loop (single stream, closed loop) on the client's tier: in-process or to another tier."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Protocol

from tierserver import protocol
from tierserver.errors import CommandError, PeerError, TierError
from tierserver.messages import (
    Codec,
    LinkProbe,
    Measure,
    MeasureResult,
    Probe,
    ProbeDirection,
    Sample,
    SamplePart,
    SteadyWarmup,
)
from tierserver.pipeline import Arrays, Files, InferenceResult, Serving, Tier
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
        inputs = _read_inputs(command, self._tier.files)
        target = self._take(command)
        try:
            warmup = _warm_up(target, inputs, command)
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
        steady = None if command.steady is None else is_steady([sample.latency_s for sample in warmup[1:]])
        return MeasureResult(samples, warmup, steady)

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


def _warm_up(target: InferenceTarget, inputs: Mapping[str, bytes], command: Measure) -> tuple[Sample, ...]:
    """Send what a warm-up sends; its samples count up to -1, so that those of a measurement begin at 0."""
    if command.steady is None:
        return tuple(_passes(target, inputs, range(-command.warmup, 0), first=-command.warmup * len(inputs)))
    taken = tuple(_until_steady(target, inputs, command.steady))
    return tuple(replace(sample, seq=index - len(taken)) for index, sample in enumerate(taken))


def _until_steady(target: InferenceTarget, inputs: Mapping[str, bytes], steady: SteadyWarmup) -> Iterator[Sample]:
    """Send the first input, then the other one until its latencies are steady or enough were sent."""
    started = time.perf_counter()
    yield _sample(target, 0, steady.first, -1, inputs[steady.first])
    latencies_s: list[float] = []
    while True:
        sample = _sample(target, 0, steady.repeated, -1, inputs[steady.repeated])
        yield sample
        latencies_s.append(sample.latency_s)
        lasted = time.perf_counter() - started >= steady.least_s
        if lasted and (is_steady(latencies_s) or len(latencies_s) + 1 >= steady.most):
            return


# The values of each of the two windows that are compared: with more, a warm-up would be as long as the samples.
_WINDOW = 2
# What one window may be above the other, and below it: pyperf's limits for means.
_STILL_FALLING = 0.10
_RISING = 0.50
# Tukey's fence: beyond the third quartile by so many interquartile ranges.
_FENCE = 1.5


def is_steady(latencies_s: Sequence[float]) -> bool:
    """Return whether the last latencies of one input no longer fall.

    The last values are two windows, as where pyperf calibrates its warm-up (`WorkerTask.test_calibrate_warmups`,
    https://github.com/psf/pyperf): the first value is no outlier of the others, and mean and spread of the windows
    agree. Its windows have 20 values; here they have two, so that quartiles and spread are judged against the mean.
    """
    if len(latencies_s) < 2 * _WINDOW:
        return False
    earlier, later = latencies_s[-2 * _WINDOW : -_WINDOW], latencies_s[-_WINDOW:]
    mean = sum(later) / _WINDOW
    quartile_1, _, quartile_3 = quantiles([*earlier[1:], *later], method="inclusive")
    # Values that hardly differ have a fence so narrow that every second one would lie beyond it.
    fence = max(quartile_3 + _FENCE * (quartile_3 - quartile_1), (1 + _STILL_FALLING) * mean)
    if earlier[0] > fence:
        return False
    if not -_RISING * mean <= sum(earlier) / _WINDOW - mean <= _STILL_FALLING * mean:
        return False
    # Only a spread that shrinks tells of a warm-up; one that grows tells of a disturbance, which other rules judge.
    spread = max(earlier) - min(earlier) - (max(later) - min(later))
    return spread <= _RISING * mean


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


def _read_inputs(command: Measure, files: Files) -> Mapping[str, bytes]:
    passes = (command.repetitions, command.warmup)
    if min(passes) < 0 or (sum(passes) < 1 and command.steady is None) or not command.input_ids:
        raise CommandError("measure needs at least one input and one pass over them, and no negative counts")
    if command.steady is not None and not {command.steady.first, command.steady.repeated} <= set(command.input_ids):
        raise CommandError("the inputs of a warm-up until steady are among those that are measured")
    try:
        return {name: files.path(f"{command.inputs_dir}/{name}").read_bytes() for name in command.input_ids}
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
