"""Asking another tier to run a model: protocol over transport, with the times and bytes it reports."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from tierserver import protocol
from tierserver.errors import PeerError, RequestError
from tierserver.messages import MessageError, SampleLink, SamplePart
from tierserver.transport import LINK_HEADER, TIER_HEADER, Connection, Response


@dataclass(frozen=True)
class PeerAnswer:
    """What the tiers behind the link gave, and how long reading it took here."""

    outputs: Mapping[str, NDArray[Any]]
    parts: tuple[SamplePart, ...]
    links: tuple[SampleLink, ...]
    decode_s: float


class Peer:
    """The tier at `base_url`, seen from tier `own`."""

    def __init__(self, own: str, base_url: str) -> None:
        self._own = own
        self._connection = Connection(base_url)
        self.base_url = base_url

    def infer(self, model: str, body: protocol.Body) -> PeerAnswer:
        headers = {"content-type": "application/json"}
        if body.header_length is not None:
            headers = {"content-type": "application/octet-stream", protocol.HEADER_LENGTH: str(body.header_length)}
        response = self._connection.request(
            "POST", f"/v2/models/{quote(model)}/infer", pieces=body.pieces, headers=headers
        )
        started = time.perf_counter()
        self._check(response)
        try:
            answer = protocol.decode_response(response.body, response.headers.get(protocol.HEADER_LENGTH))
            parts = tuple(map(SamplePart.from_json, json.loads(answer.parameters["tierwise_parts"])))
            further = tuple(map(SampleLink.from_json, json.loads(answer.parameters["tierwise_links"])))
            links = (*self._links(response), *further)
        except (KeyError, ValueError, TypeError, MessageError, RequestError) as error:
            raise PeerError(f"{self.base_url} does not report as a tier does: {error}", peer=self.base_url) from error
        return PeerAnswer(answer.outputs, parts, links, time.perf_counter() - started)

    def metadata(self, model: str) -> dict[str, Any]:
        response = self._connection.request("GET", f"/v2/models/{quote(model)}")
        self._check(response)
        try:
            found = json.loads(bytes(response.body))
        except ValueError as error:
            raise PeerError(f"{self.base_url} gives no metadata of {model}", peer=self.base_url) from error
        return dict(found)

    def close(self) -> None:
        self._connection.close()

    def _check(self, response: Response) -> None:
        if response.status != 200:
            reason = bytes(response.body[:500]).decode("utf-8", "replace")
            message = f"{self.base_url} answered {response.status}: {reason}"
            raise PeerError(message, peer=self.base_url, peer_status=response.status)

    def _links(self, response: Response) -> tuple[SampleLink, ...]:
        first = response.headers.get(TIER_HEADER, "?")
        own = SampleLink(f"{self._own}-{first}", response.sent_bytes, response.received_bytes)
        relayed = response.headers.get(LINK_HEADER, "")
        return (own, *(parse_link(each) for each in relayed.split(",") if each.strip()))


def parse_link(value: str) -> SampleLink:
    """One hop of the `tierwise-link` header: `edge-cloud;sent=10;received=20`."""
    name, sent, received = value.strip().split(";")
    return SampleLink(name, int(sent.removeprefix("sent=")), int(received.removeprefix("received=")))


def format_link(link: SampleLink) -> str:
    return f"{link.link};sent={link.sent_bytes};received={link.received_bytes}"
