"""The colours and letters of the picture, in light and in dark surroundings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["COLOURS", "STYLE"]

# Light and dark; told apart by most of those who see colours otherwise (after Okabe and Ito, 2008).
COLOURS: Final[Mapping[str, tuple[str, str]]] = {
    "area": ("#8a63d2", "#a98af0"),
    "network": ("#0072b2", "#4aa8e8"),
    "data_set": ("#009e73", "#2cc39a"),
    "scene": ("#d55e00", "#f2832f"),
    "brain": ("#cc4f8f", "#ea7db4"),
    "run": ("#a07c00", "#cfae3c"),
}


def _coloured(kinds: Iterable[str], shade: int) -> str:
    rules = ((kind, COLOURS[kind][shade]) for kind in kinds)
    return "\n".join(
        f".lineage .{kind}-fill{{fill:{colour}}} .lineage .{kind}-line{{stroke:{colour}}}" for kind, colour in rules
    )


_RULES: Final = """\
.lineage{font-family:system-ui,-apple-system,"Segoe UI","DejaVu Sans",Helvetica,Arial,sans-serif}
.lineage .paper{fill:#ffffff}
.lineage .box{fill:#f7f8fa;stroke-width:1.3}
.lineage .root .box{fill:#fff6d6;stroke-width:2.6}
.lineage .missing .box{stroke-dasharray:5 4}
.lineage .title{fill:#16191d;font-size:13px;font-weight:600}
.lineage .detail{fill:#5b6470;font-size:11px}
.lineage .head{fill:#16191d;font-size:16px;font-weight:600}
.lineage .edge{fill:none;stroke-width:1.5;stroke-opacity:.6}
.lineage .tip{fill:#7a8390}
.lineage .role{fill:#454d57;font-size:10.5px;stroke:#ffffff;stroke-width:3px;stroke-linejoin:round;paint-order:stroke}
"""

_DARK: Final = """\
.lineage .paper{fill:#14171b}
.lineage .box{fill:#20252b}
.lineage .root .box{fill:#3a3214}
.lineage .title,.lineage .head{fill:#eef1f4}
.lineage .detail{fill:#a4adb8}
.lineage .tip{fill:#8b949f}
.lineage .role{fill:#c6cdd5;stroke:#14171b}
"""

STYLE: Final = (
    f"\n{_coloured(COLOURS, 0)}\n{_RULES}@media (prefers-color-scheme:dark){{\n{_coloured(COLOURS, 1)}\n{_DARK}}}\n"
)
