"""Pictures say what the relation says: text letter by letter, images pixel by pixel."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from windeye.patterns import Blocks, Causal, Full, Neighborhood, Sinks, Sliding
from windeye.patterns.draw import INK, MOST_TEXT_COLUMNS, PAPER, draw, figure, seen_by


def lines(text):
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_a_sequence_is_its_mask():
    assert (Sliding(3) | Sinks(1)).bind((6,)).draw() == lines(
        """
        ◆·····
        █◆····
        ██◆···
        ███◆··
        █·██◆·
        █··██◆
        """
    )


def test_a_query_that_does_not_see_itself_is_marked_all_the_same():
    assert (Neighborhood(4, stride=2, boundary="truncate") & Blocks(2)).bind((4,)).draw() == lines(
        """
        ◆█··
        █◆··
        ··◆█
        ··█◆
        """
    )
    assert (Sinks(1) & Sliding(2)).bind((3,)).draw().splitlines()[2] == "··◆"


def test_between_two_grids_nothing_is_marked():
    assert Causal().bind((2,), (4,)).draw() == "███·\n████"
    assert Full().bind((3,), (2,)).draw(queries=[(1,)]) == "query 1\n██"


def test_a_plane_is_a_panel_for_each_query():
    text = Neighborhood((3, 3), dilation=(1, 2)).bind((4, 6)).draw(queries=[(0, 0), (3, 3)])
    assert text == (
        "query 0, 0\n"
        "◆·█·█·\n"
        "█·█·█·\n"
        "█·█·█·\n"
        "······\n"
        "\n"
        "query 3, 3\n"
        "······\n"
        "·█·█·█\n"
        "·█·█·█\n"
        "·█·◆·█"
    )  # fmt: skip


def test_without_queries_a_corner_an_edge_and_the_centre_are_shown():
    assert re.findall(r"query (.*)", Full().bind((4, 6)).draw()) == ["0, 0", "2, 5", "2, 3"]
    assert re.findall(r"query (.*)", Full().bind((1, 1)).draw()) == ["0, 0"]


def test_a_volume_is_a_strip_of_slices():
    text = Neighborhood((1, 2, 3)).bind((2, 2, 3)).draw(queries=[(1, 0, 1)])
    assert text == "query 1, 0, 1\nslice 0\n···\n···\nslice 1\n█◆█\n███"


def test_the_text_of_every_query_is_its_row():
    bound = (Neighborhood((3, 2), stride=(2, 1)) | Blocks(2)).bind((5, 4))
    for query in np.ndindex(5, 4):
        rows = bound.draw(queries=[query]).splitlines()[1:]
        seen = seen_by(bound, query)
        assert np.array_equal(np.array([[c != "·" for c in row] for row in rows]), seen)
        assert rows[query[0]][query[1]] == "◆"


def test_the_picture_of_a_sequence_is_its_mask():
    bound = Sliding(4).bind((9,))
    picture = figure(bound, [(0,)])
    (axes,) = picture.axes
    assert np.array_equal(np.asarray(axes.images[0].get_array()), bound.mask().numpy())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("key", "query")
    assert picture.get_suptitle() == "30 pairs, 37.0% of all"


def test_the_picture_of_a_plane_has_a_panel_for_each_query_with_a_mark_on_it():
    bound = Neighborhood(3).bind((6, 7))
    chosen = [(0, 0), (5, 2), (3, 6)]
    picture = figure(bound, chosen, whole=False)
    assert len(picture.axes) == 3
    for axes, query in zip(picture.axes, chosen, strict=True):
        assert np.array_equal(np.asarray(axes.images[0].get_array()), seen_by(bound, query))
        (mark,) = axes.lines
        assert (mark.get_ydata()[0], mark.get_xdata()[0]) == query
        assert axes.get_title() == f"query {query[0]}, {query[1]}"


def test_the_picture_of_a_volume_stacks_its_slices():
    bound = Neighborhood((2, 3, 3)).bind((3, 4, 5))
    (axes,) = figure(bound, [(1, 2, 3)], whole=False).axes
    assert np.array_equal(np.asarray(axes.images[0].get_array()), seen_by(bound, (1, 2, 3)).reshape(12, 5))
    mark, *cuts = axes.lines
    assert (mark.get_ydata()[0], mark.get_xdata()[0]) == (4 + 2, 3)
    assert [cut.get_ydata()[0] for cut in cuts] == [3.5, 7.5]


@pytest.mark.parametrize(("pattern", "grid"), [(Sliding(3), (12,)), (Neighborhood(3), (6, 7))])
def test_a_png_is_written_and_valid(tmp_path, pattern, grid):
    path = tmp_path / "a.png"
    assert pattern.bind(grid).draw(str(path)) == str(path)
    image = imread(path)
    assert min(image.shape[:2]) > 400
    colours = {tuple(colour) for colour in np.unique(image.reshape(-1, image.shape[2])[:, :3], axis=0).round(2)}
    for colour in (INK, PAPER):
        assert tuple(np.round(to_rgb(colour), 2).astype(image.dtype)) in colours


@pytest.mark.parametrize("grid", [(12,), (2, 3, 4)])
def test_an_svg_is_written_and_valid(tmp_path, grid):
    path = tmp_path / "b.SVG"
    assert draw(Full().bind(grid), str(path)) == str(path)
    assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


WRONG = {
    "another suffix": (lambda: Full().bind((4,)).draw("a.bmp"), "path must end in .png or .svg, got 'a.bmp'"),
    "no suffix": (lambda: Full().bind((4,)).draw("png"), "path must end in .png or .svg, got 'png'"),
    "no tokens": (lambda: Full().bind((4,), (0,)).draw(), r"nothing to draw: the grids are \(4,\) and \(0,\)"),
    "no queries": (lambda: Full().bind((4,)).draw(queries=[]), r"at least one query, got \[\]"),
    "a query outside": (lambda: Full().bind((4, 5)).draw(queries=[(0, 5)]), r"\(0, 5\) lies outside .* 0 to 4"),
    "a query of other rank": (lambda: Full().bind((4, 5)).draw(queries=[(0,)]), r"query \(0,\) has 1 coordinates"),
    "too many columns": (
        lambda: Full().bind((4,), (MOST_TEXT_COLUMNS + 1,)).draw(),
        "the last axis has 129 keys, text holds 128; give a path ending in .png",
    ),
    "too many rows": (lambda: Full().bind((513,), (8,)).draw(), "513 queries are too many rows of text"),
    "too large a mask": (lambda: figure(Full().bind((4096,)), [(0,)]), "4096 queries and 4096 keys is too large"),
    "too large a grid": (lambda: figure(Full().bind((2049, 2048)), [(0, 0)]), "too large to draw"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_drawn_is_refused_with_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_long_sequence_is_drawn_query_by_query():
    text = Sliding(2).bind((600,), (100,)).draw(queries=[(599,), (500,)])
    assert text.splitlines() == ["query 599", "·" * 98 + "██", "", "query 500", "█" + "·" * 99]
