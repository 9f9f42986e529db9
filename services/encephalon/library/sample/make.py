"""`python -m encephalon.library.sample.make DATASET RAW [FOLDER]`: takes the packaged sample from a built data set.

The rule: walk the test split in its own order and keep the first 30 pairs of each digit. Nobody looks at what a
network makes of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encephalon.core.errors import NotFound
from encephalon.library import avmnist
from encephalon.library.sample.pairs import DATA, Sample, save_sample

__all__ = ["make"]

PER_DIGIT = 30

HEADER = """# Attribution of the packaged sample

The {count} pairs are taken from the test split of AV-MNIST as `encephalon data get avmnist` builds it with its
default parameters: the first {per_digit} pairs of each digit, in the order of the split. `images.png` holds the
pictures (20 in a row, in order), `audio.flac` the sounds one after the other (8,000 samples each, 8 kHz, 16 bit),
`pairs.json` the labels and where each pair comes from.

| work | by | licence | changes |
|---|---|---|---|
{sources}

`images.png` is under CC BY-SA 3.0 and `audio.flac` under CC BY-SA 4.0, as the works that they are made from ask.

## The noises

Each is a clip of ESC-10, made by Karol J. Piczak (CC BY 3.0) from a sound of freesound.org:

{noises}
"""


def make(dataset: Path, raw: Path, folder: Path) -> Sample:
    """Writes the sample of `dataset` to `folder`; `raw` holds `esc10/README.md` with the credits of its clips."""
    pairs, description = avmnist.open_split(dataset, "test"), avmnist.describe(dataset)
    places = _balanced(pairs.labels)
    sample = Sample(pairs.images[places], pairs.audio[places], pairs.labels[places], places)
    clips = [description.noises[at] for at in pairs.noises[places]]
    facts = {
        "rule": f"the first {PER_DIGIT} test pairs of each digit, in order",
        "parameters": description.parameters.as_dict(),
        "recordings": [description.recordings[at] for at in pairs.recordings[places]],
        "noises": clips,
    }
    save_sample(folder, sample, facts)
    credits = dict(_credits(raw / "esc10" / "README.md"))
    noises = "\n".join(f"- {name}: {credits[Path(name).name]}" for name in sorted(set(clips)))
    sources = "\n".join(
        f"| [{one['name']}]({one['home']}) | {one['by']} | {one['licence']} | {one['changes']} |"
        for one in description.attribution
    )
    text = HEADER.format(count=len(sample), per_digit=PER_DIGIT, sources=sources, noises=noises)
    (folder / "ATTRIBUTION.md").write_text(text)
    return sample


def _balanced(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first 30 places of each digit, sorted."""
    chosen = [np.flatnonzero(labels == digit)[:PER_DIGIT] for digit in range(10)]
    return np.sort(np.concatenate(chosen))


def _credits(readme: Path) -> Iterator[tuple[str, str]]:
    """File name of each clip, and what the data set's README says of its origin."""
    if not readme.is_file():
        raise NotFound(f"{readme} is missing; it holds the credits of the noise clips", path=readme)
    for line in readme.read_text().splitlines():
        found = re.match(r"- \*\*\[(.+?\.ogg)\]\(.*?\)\*\*:\s+(.*)", line)
        if found:
            yield found[1], found[2]


def main(argv: Sequence[str]) -> None:
    make(Path(argv[0]), Path(argv[1]), Path(argv[2]) if len(argv) > 2 else DATA)


if __name__ == "__main__":
    main(sys.argv[1:])
