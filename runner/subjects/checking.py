"""Every picture, label and mask of a folder is looked at before anything is measured: once for each content."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from runner.errors import SubjectError
from runner.subjects.folders import Layout
from runner.subjects.masks import check_picture


@dataclass(frozen=True)
class Checked:
    """A subject's source that has nothing to build, only to look at; what was sound is remembered in `kept`."""

    layout: Layout
    judged: bool
    kept: Path

    def absent(self) -> str | None:
        return None

    def prepare(self) -> None:
        """Decode everything; raises SubjectError for the first file that cannot be used."""
        pictures = self.layout.validation()
        if not pictures:
            raise SubjectError(f"{self.layout.root} holds no picture that is used; expected {self.layout.expected}")
        labels = self.layout.labels() if self.judged else {}
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in pictures]
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in labels.items()}
        key = hashlib.sha256(json.dumps([self.layout.kind, stats, digests], sort_keys=True).encode()).hexdigest()
        marker = self.kept / "looked-at" / key
        if marker.is_file():
            return
        for path in pictures:
            check_picture(path)
        for _ in self.layout.truth(pictures).values if self.judged else ():
            pass
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
