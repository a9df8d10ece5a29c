"""The environment of a measurement: host, engine, versions, scale. Evidence of two environments is never mixed."""

from catalog.keys import content_key
from runner.host import versions
from runner.plan import Session


def key(session: Session) -> str:
    """Content key of the environment."""
    return content_key(
        {
            "launcher": session.launcher,
            "scale": str(session.scale),
            "host": session.host.fingerprint,
            "runtime": versions()["onnxruntime"],
        }
    )
