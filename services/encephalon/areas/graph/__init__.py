"""Networks that come as a graph in a file, with a contract of their own: Darknet's cfg, run by torch, and ONNX, run by
onnxruntime. What such a file says is checked before anything is allocated for it; neither brings code along."""

__all__: list[str] = []
