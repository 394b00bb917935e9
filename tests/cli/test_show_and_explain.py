"""`windeye show` and `windeye explain`, as a user types them."""

import json

import pytest

from cli.typed import windeye


def test_show_draws_a_sequence():
    done = windeye("show", "sliding 2 | sinks 1", "--grid", "5")
    assert done.exit_code == 0
    assert done.stdout.startswith("◆····\n█◆···\n██")
    assert "pairs" in done.stdout


def test_show_draws_chosen_queries_of_a_grid():
    done = windeye("show", "neighborhood 3", "--grid", "4x5", "--query", "1,2")
    assert done.stdout.startswith("query 1, 2\n·███·\n·█◆█·\n·███·\n·····")


def test_show_writes_a_picture(tmp_path):
    out = tmp_path / "a.svg"
    assert windeye("show", "neighborhood 3", "--grid", "9x9", "--out", out).exit_code == 0
    assert "<svg" in out.read_text()


def test_explain_says_what_would_run():
    done = windeye("explain", "neighborhood 16 stride 8", "--grid", "64x64", "--json")
    facts = json.loads(done.stdout)
    assert facts["pairs"] == 4096 * 256
    assert facts["flop_bound"] == 16.0
    assert "FLOP bound 16.0x" in windeye("explain", "neighborhood 16 stride 8", "--grid", "64x64").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "neighbourhood 3", "--grid", "4x4"), "a pattern starts with one of"),
        (("show", "neighborhood 9", "--grid", "4x4"), "axis 0 has 4"),
        (("show", "neighborhood three", "--grid", "4x4"), "'three' is neither a number"),
        (("show", "neighborhood", "--grid", "4x4"), "lacks a value for kernel_size"),
        (("show", "neighborhood 3", "--grid", "4*4"), "--grid must be integers joined by x"),
        (("show", "neighborhood 3", "--grid", "0x4"), "at least one token per axis"),
        (("show", "neighborhood 3", "--grid", "9x9", "--query", "9,9"), "lies outside the grid"),
        (("show", "neighborhood 3", "--grid", "9x9", "--out", "a.bmp"), ".png or .svg"),
        (("explain", "sliding 3", "--grid", "9", "--dtype", "int8"), "--dtype must be one of"),
        (("explain", "sliding 3", "--grid", "9", "--device", "abacus"), "--device 'abacus'"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_two(words, message):
    done = windeye(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_version_and_help():
    assert windeye("--version").stdout.startswith("windeye 0.")
    help_text = windeye("--help").stdout
    for command in ("show", "explain", "assets"):
        assert command in help_text
