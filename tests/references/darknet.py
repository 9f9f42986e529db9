"""Asks OpenCV what Darknet networks answer: `pip install 'opencv-python-headless<5'`, then
`python -m tests.references.darknet [FOLDER OF YOLO-FASTEST]`, which writes `darknet.json` beside this file.

OpenCV 5 reads Darknet no more. Weights and pictures come from seeds, so the file holds answers only.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from encephalon.areas.graph.plan import Plan, plan_of

__all__ = ["CFGS", "EPSILON", "REFERENCE", "SAMPLES", "picture", "weights_file"]

REFERENCE = Path(__file__).with_suffix(".json")
EPSILON = 1e-6
"""What OpenCV adds to a variance."""
SAMPLES = 64
"""Numbers of a large answer that are kept, evenly spaced."""

NET = "[net]\nchannels=3\nheight=12\nwidth=16\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
YOLO = "[yolo]\nmask=0,1,2\nanchors=1,2,3,4,5,6\nclasses=1\nnum=3\n"
MAP = "[convolutional]\nfilters=18\nsize=1\nactivation=linear\n"
CFGS = {
    "activations": NET
    + "".join(
        f"[convolutional]\nfilters=4\nsize=3\nstride=1\npad=1\nbatch_normalize={number % 2}\nactivation={name}\n"
        for number, name in enumerate(("leaky", "mish", "relu", "logistic", "swish", "linear"))
    ),
    "residual": NET + CONV + CONV + "[shortcut]\nfrom=-2\nactivation=linear\n" + CONV + "[upsample]\nstride=2\n",
    "pyramid": NET
    + CONV
    + "[maxpool]\nsize=5\nstride=1\n[route]\nlayers=-2\n[maxpool]\nsize=3\nstride=2\n[maxpool]\nsize=2\nstride=2\n",
    "routes": NET
    + CONV
    + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"
    + CONV.replace("filters=8", "filters=4\ngroups=4")
    + "[route]\nlayers=-1,0\n"
    + CONV.replace("stride=1", "stride=2"),
    "reorg": NET + CONV + "[reorg]\nstride=2\n[convolutional]\nfilters=2\nsize=1\nactivation=linear\n",
    "classes": NET + CONV + "[avgpool]\n[softmax]\ngroups=1\n",
    "heads": NET + CONV + MAP + YOLO + "[route]\nlayers=-3\n[upsample]\nstride=2\n" + MAP + YOLO,
}


def weights_file(plan: Plan) -> bytes:
    """A Darknet weights file with numbers of a fixed seed; variances and scales are near one."""
    random = np.random.default_rng(7)
    parts = [np.array([0, 2, 5, 320, 0], "<i4").tobytes()]
    for layer in plan.layers:
        for name, shape in layer.tensors.items():
            values = random.standard_normal(math.prod(shape)) * 0.3
            parts.append((1 + np.abs(values) if name in ("variance", "scale") else values).astype("<f4").tobytes())
    return b"".join(parts)


def picture(plan: Plan) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((1, *plan.input), np.float32)


def ask(cfg: Path, weights: Path, plan: Plan) -> dict[str, list[float]]:
    import cv2

    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    network.setInput(picture(plan))
    names = list(network.getLayerNames())
    found: dict[str, list[float]] = {}
    for output, index in plan.outputs.items():
        # OpenCV's own heads change the map; what they are given is the convolution before them.
        kind = "conv" if output.startswith("head_") else ""
        before = f"conv_{index - 1}" if kind else names[-1]
        answer = np.asarray(network.forward(before)).ravel()
        step = max(1, len(answer) // SAMPLES)
        found[output] = [round(float(value), 7) for value in answer[::step]]
    return found


def main(folder: str = "") -> None:
    reference: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        cfg, weights = Path(name) / "net.cfg", Path(name) / "net.weights"
        for title, text in CFGS.items():
            plan = plan_of(text)
            cfg.write_text(text)
            weights.write_bytes(weights_file(plan))
            reference[title] = ask(cfg, weights, plan)
    for path in sorted(Path(folder).glob("*/*.cfg")) if folder else []:
        reference[path.stem] = ask(path, path.with_suffix(".weights"), plan_of(path.read_text()))
    REFERENCE.write_text(json.dumps(reference, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
