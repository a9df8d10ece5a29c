"""ONNX graphs read, understood and rewritten without touching the weights."""
