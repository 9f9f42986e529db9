"""An area of touch, and a network of vision. Plain data: the coordinator and the command line import this module, so it
imports nothing that computes; `load` is only a name until a region runs one of these networks."""

from __future__ import annotations

from encephalon.core.contract import Contract, TensorSpec
from encephalon.library.areas import Area

__all__ = ["TOUCH", "VISION"]

TOUCH = Area(
    name="touch",
    description="Feels how hard and where something presses.",
    contract=Contract(
        inputs=(TensorSpec("pressure", "FP32", (-1, -1), description="[batch, sensors] in kilopascal"),),
        outputs=(
            TensorSpec("strongest", "INT64", (-1, 1), description="the sensor that feels most"),
            TensorSpec("total", "FP32", (-1, 1), description="kilopascal"),
        ),
    ),
    networks={"001": "Strongest"},
    load="encephalon_touch.networks:load_touch",
)

VISION = Area(
    name="vision",
    description="",
    # None: that of the area as it is.
    contract=None,
    networks={"101": "Brightness"},
    load="encephalon_touch.networks:load_vision",
)
