"""Heat maps and curves: what the page tells is what was given."""

import base64
import io
import json
import re
import shutil
import subprocess
from importlib import resources
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from windeye.report.curves import curves, script
from windeye.report.heat import DARK, LIGHT, heat_map, pixels

SVG = "{http://www.w3.org/2000/svg}"


def test_cells_of_a_heat_map_tell_their_values_and_are_darker_for_larger_ones():
    values = np.array([[0.0, 0.25], [0.5, 1.0]])
    picture = heat_map("t", "c", values, rows=["L0", "L1"], columns=["H0", "H<1"], notes=[["", "sink"], ["", ""]])
    cells = ElementTree.fromstring(picture.content).findall(f"{SVG}rect")
    assert [cell.find(f"{SVG}title").text for cell in cells] == ["L0H0: 0", "L0H<1: 0.25 sink", "L1H0: 0.5", "L1H<1: 1"]
    red = [int(cell.get("fill")[1:3], 16) for cell in cells]
    assert red == sorted(red, reverse=True)
    assert (red[0], red[-1]) == (LIGHT[0], DARK[0])
    assert picture.caption == "c Light 0, dark 1."


def test_a_given_range_is_that_of_the_colours():
    picture = heat_map("t", "c", np.array([[2.0, -1.0]]), rows=["a"], columns=["x", "y"], least=0, most=1)
    fills = re.findall(r'fill="(#[0-9a-f]{6})"><title', picture.content)
    assert fills == ["#173f5f", "#f2f5f7"]
    even = heat_map("t", "c", np.full((1, 2), 3.0), rows=["a"], columns=["x", "y"])
    assert even.content.count("#f2f5f7") == 2


def test_names_must_fit_the_values():
    with pytest.raises(ValueError, match=r"values must be \[rows 1, columns 2\], got shape \(2, 1\)"):
        heat_map("t", "c", np.zeros((2, 1)), rows=["a"], columns=["x", "y"])


@pytest.mark.parametrize(("columns", "expected"), [(100, 64), (64, 64), (50, 50), (65, 64)])
def test_wide_tables_become_pixels_that_average_their_bins(columns, expected):
    values = np.arange(3 * columns, dtype=float).reshape(3, columns)
    content = pixels("t", "c", values, columns=64).content
    image = imread(io.BytesIO(base64.b64decode(content.split(",", 1)[1])))
    assert image.shape[:2] == (3, expected)
    assert (np.diff(image[..., 0], axis=1) <= 0).all()
    assert image[0, 0, 0] > image[1, 0, 0] > image[2, -1, 0]


def test_curves_carry_their_numbers_exactly_and_labels_that_end_scripts():
    values = np.linspace(0, 1, 5, dtype=np.float32)
    html = curves("t <", "c", {"a": values, "b": -values}, ["x", "</script>", "\n", '"', "é"])
    assert html.count("</script>") == 1
    told = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert told["labels"] == ["x", "</script>", "\n", '"', "é"]
    read = [np.frombuffer(base64.b64decode(s["data"]), "<f4") for s in told["series"]]
    assert np.array_equal(read, [values, -values])
    assert "t &lt;" in html


def test_curves_need_points_of_one_size():
    for series, labels in ({}, None), ({"a": np.zeros(2), "b": np.zeros(3)}, None), ({"a": np.zeros(2)}, ["x"]):
        with pytest.raises(ValueError, match="must be of one size above 0"):
            curves("t", "c", series, labels)


def test_a_page_of_32k_points_stays_small():
    values = np.random.default_rng(0).random(2**15)
    labels = [f" token{i % 1000}" for i in range(2**15)]
    assert len(curves("t", "c", dict.fromkeys("abc", values), labels)) < 2**20


def test_the_script_is_valid_and_asks_for_nothing_outside():
    assert "http" not in script().replace("http://www.w3.org", "")
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node here to read JavaScript")
    path = str(resources.files("windeye.report").joinpath("curves.js"))
    done = subprocess.run([node, "--check", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
