"""The runner: measures the strategies whose evidence is missing, in real tiers, and stores what it saw."""

import os

# ONNX Runtime reports usage to its vendor unless told otherwise before its first import; a measuring tool stays quiet.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
