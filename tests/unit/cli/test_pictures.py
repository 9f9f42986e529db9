from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from encephalon.cli.pictures import draw, shrink

RAMP = np.array([[0, 255], [0, 255], [255, 128], [255, 128]], np.uint8)


def test_two_pixels_share_a_character() -> None:
    assert draw(RAMP, colour=False, blocks=True).plain == " █\n█▒"


def test_a_terminal_without_blocks_gets_letters() -> None:
    text = draw(RAMP, colour=False, blocks=False).plain
    assert text.isascii()
    assert text == " @\n@+"


def test_colour_draws_the_grey_levels_themselves() -> None:
    text = draw(RAMP, colour=True, blocks=True)
    assert text.plain == "▀▀\n▀▀"
    assert [str(span.style) for span in text.spans][:2] == [
        "rgb(0,0,0) on rgb(0,0,0)",
        "rgb(255,255,255) on rgb(255,255,255)",
    ]


def test_an_odd_height_ends_in_black() -> None:
    assert draw(np.full((3, 1), 255, np.uint8), colour=False, blocks=True).plain == "█\n▒"


def test_every_grey_level_can_be_drawn() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    for blocks in (True, False):
        assert len(draw(levels, colour=False, blocks=blocks).plain) == 128


def test_a_picture_is_shrunk_by_a_whole_factor_and_keeps_its_brightest() -> None:
    picture = np.zeros((28, 28), np.uint8)
    picture[3, 4] = 200
    small = shrink(picture, 14)
    assert small.shape == (14, 14)
    assert small.max() == small[1, 2] == 200
    assert shrink(picture, 28).shape == (28, 28)
    assert shrink(np.zeros((28, 28), np.uint8), 14).max() == 0


def test_drawn_pictures_reach_a_dumb_terminal() -> None:
    console = Console(file=io.StringIO(), no_color=True, width=10)
    console.print(draw(RAMP, colour=False, blocks=True))
