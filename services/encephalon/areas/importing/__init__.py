"""Networks come in: safetensors, PyTorch state dicts, Darknet and ONNX become one file that a region runs.

Nothing in a file is executed. What does not fit is refused in a sentence that lists every tensor, before a byte is
written. `python -m encephalon.areas.importing` does the same for programs that do not load torch.
"""

from encephalon.areas.importing.convert import Imported, convert

__all__ = ["Imported", "convert"]
