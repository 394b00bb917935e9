"""`windeye simulate` and `windeye suggest`, as a user types them."""

import json

import pytest

from cli.typed import windeye

HUNYUAN = ("--grid", "30x48x80", "--q-tile", "4x8x8", "--kv-tile", "2x8x8")


def test_a_published_value():
    done = windeye("simulate", "neighborhood 18x24x24 stride 16x8x8", *HUNYUAN, "--share", "0.607", "--json")
    (facts,) = json.loads(done.stdout)
    assert round(facts["end_to_end"], 2) == 2.23
    assert facts["fully_block_sparse"] is True
    text = windeye("simulate", "neighborhood 18x24x24 stride 16x8x8", *HUNYUAN, "--share", "0.607").stdout
    assert "2.23x" in text
    assert "11.11x" in text


def test_dense_steps():
    words = ("simulate", "neighborhood 18x24x24", *HUNYUAN, "--share", "0.607", "--dense-steps", "15/50", "--json")
    assert round(json.loads(windeye(*words).stdout)[0]["end_to_end"], 2) == 1.42


def test_sweep_lists_strides_from_slow_to_fast():
    done = windeye("simulate", "neighborhood 18x24x24", *HUNYUAN, "--sweep-stride", "--json")
    speeds = [facts["op_speedup"] for facts in json.loads(done.stdout)]
    assert speeds == sorted(speeds)
    assert len(speeds) > 3
    assert "masks" in windeye("simulate", "neighborhood 18x24x24", *HUNYUAN, "--sweep-stride").stdout


def test_suggestions():
    done = windeye("suggest", "--grid", "64x64", "--density", "0.1", "--top", "3", "--json")
    assert len(json.loads(done.stdout)) == 3
    assert "Neighborhood" in windeye("suggest", "--grid", "64x64", "--density", "0.1").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate", "neighborhood 3", "--grid", "9", "--q-tile", "x", "--kv-tile", "2"), "--q-tile must be integers"),
        (("simulate", "neighborhood 3", "--grid", "9", "--q-tile", "2x2", "--kv-tile", "2"), "q_tile (2, 2)"),
        (("simulate", "neighborhood 3", *HUNYUAN, "--mode", "hopping"), "mode must be one of"),
        (("simulate", "neighborhood 3", *HUNYUAN, "--share", "60.7"), "share must be in [0, 1]"),
        (("simulate", "neighborhood 3", *HUNYUAN, "--dense-steps", "15"), "--dense-steps must be a fraction"),
        (("simulate", "blocks 4", *HUNYUAN, "--sweep-stride"), "strides belong to a Neighborhood"),
        (("suggest", "--grid", "64x64", "--density", "2"), "density must be above 0"),
    ],
)
def test_bad_input(words, message):
    done = windeye(*words)
    assert done.exit_code == 2
    assert message in done.stderr
