"""Whose work AV-MNIST is made of, and under which licences."""

from __future__ import annotations

__all__ = ["SOURCES"]

SOURCES = [
    {
        "name": "MNIST handwritten digits",
        "by": "Yann LeCun, Corinna Cortes, Christopher J. C. Burges",
        "home": "http://yann.lecun.com/exdb/mnist/",
        "licence": "CC BY-SA 3.0",
        "changes": "reduced to a few principal components, fitted on the training pictures",
    },
    {
        "name": "Free Spoken Digit Dataset",
        "by": "Zohar Jackson and the speakers george, jackson, lucas, nicolas, theo and yweweler",
        "home": "https://github.com/Jakobovski/free-spoken-digit-dataset",
        "licence": "CC BY-SA 4.0",
        "changes": "mixed with noise",
    },
    {
        "name": "ESC-10, a subset of ESC-50",
        "by": "Karol J. Piczak and the recordists of Freesound (credits per clip in its README)",
        "home": "https://github.com/karolpiczak/ESC-10",
        "licence": "CC BY 3.0",
        "changes": "resampled to 8 kHz, cut and scaled",
    },
]
