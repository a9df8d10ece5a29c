"""From an answer to files: what `runner bundle` hands over, and the proof that it runs."""

from runner.bundles.bundle import make_bundle
from runner.bundles.manifest import Manifest, read_manifest, verify_bundle

__all__ = ["Manifest", "make_bundle", "read_manifest", "verify_bundle"]
