"""Patterns as text: what a pattern prints reads back as the same pattern, and words say what a call would say."""

import pytest

from windeye.patterns import (
    Blocks,
    Causal,
    Documents,
    Full,
    Halo,
    Inward,
    Neighborhood,
    Prefix,
    Sinks,
    Sliding,
    TileWindow,
    from_spec,
    parse,
)

SPECS = {
    Full(): "Full()",
    Causal(): "Causal()",
    Neighborhood(13): "Neighborhood(kernel_size=13)",
    Neighborhood(13, stride=1, dilation=1, is_causal=False, boundary="clamp"): "Neighborhood(kernel_size=13)",
    Neighborhood((-1, 5), 2, (1, 3), (True, False), "wrap"): (
        "Neighborhood(kernel_size=(-1, 5), stride=2, dilation=(1, 3), is_causal=(True, False), boundary='wrap')"
    ),
    Sliding(256): "Sliding(window=256)",
    Sliding(7, is_causal=False): "Sliding(window=7, is_causal=False)",
    Blocks((8, 4), shift=(4, 0)): "Blocks(size=(8, 4), shift=(4, 0))",
    Halo(8, 3): "Halo(block=8, halo=3)",
    TileWindow(4, (3, 5)): "TileWindow(tile=4, tiles=(3, 5))",
    Inward(-1): "Inward(train_shape=-1)",
    Documents((300, 0, 212)): "Documents(lengths=(300, 0, 212))",
    Documents((5,)): "Documents(lengths=(5,))",
    Sinks(4): "Sinks(n=4)",
    Prefix(0): "Prefix(n=0)",
    Sliding(2) | Sinks(1): "Either(members=(Sliding(window=2), Sinks(n=1)))",
    Causal() & (Sinks(1) | Sliding(2)): "Both(members=(Causal(), Either(members=(Sinks(n=1), Sliding(window=2)))))",
}

WORDS = {
    "full": Full(),
    "causal": Causal(),
    "neighborhood 13 stride 4": Neighborhood(13, stride=4),
    "Neighborhood 13 4 2": Neighborhood(13, 4, 2),
    "na 13x5 causal wrap": Neighborhood((13, 5), is_causal=True, boundary="wrap"),
    "neighborhood -1x7 dilation 1x2 boundary truncate": Neighborhood((-1, 7), dilation=(1, 2), boundary="truncate"),
    "neighborhood stride 2 kernel_size 5 is_causal": Neighborhood(5, stride=2, is_causal=True),
    "sliding 256": Sliding(256),
    "window 7 both": Sliding(7, is_causal=False),
    "blocks 8 shift 4": Blocks(8, shift=4),
    "halo 8x4 3": Halo((8, 4), 3),
    "tilewindow 4 3": TileWindow(4, 3),
    "inward 30x52": Inward((30, 52)),
    "documents 300 0 212": Documents((300, 0, 212)),
    "sinks 4": Sinks(4),
    "prefix 4": Prefix(4),
    "sliding 256 | sinks 4": Sliding(256) | Sinks(4),
    "documents 3 4 & causal": Documents((3, 4)) & Causal(),
    "causal & sinks 3 | sliding 2": (Causal() & Sinks(3)) | Sliding(2),
    "Neighborhood(5, 2, boundary='wrap')": Neighborhood(5, 2, boundary="wrap"),
    "Causal() & (Sliding(2) | Sinks(1))": Causal() & (Sliding(2) | Sinks(1)),
    "Neighborhood([3, 5])": Neighborhood((3, 5)),
}

NOT_PATTERNS = {
    "": "a pattern starts with one of blocks, causal, .*; got nothing",
    "sliding 5 |": "got nothing",
    "neighbourhood 5": "a pattern starts with one of .*; got 'neighbourhood'",
    "both 5": "a pattern starts with one of .*; got 'both'",
    "neighborhood": "Neighborhood lacks a value for kernel_size; Neighborhood takes kernel_size, stride",
    "halo 3": "Halo lacks a value for halo",
    "neighborhood 5 stride": "'stride' needs a value after it, such as stride 4",
    "neighborhood 5 stride 2 stride 3": "'stride' is one word too many",
    "neighborhood 5 reflect": "'reflect' is neither a number",
    "neighborhood 5 stride 2.5": r"'2\.5' is neither a number",
    "sinks 1 2": "'2' is one word too many for Sinks",
    "sliding 7x3": r"Sliding: window must be an integer, got \(7, 3\)",
    "sliding 5 3": "Sliding: is_causal must be a bool, got 3",
    "documents": "at least one document",
    "documents 3 x": "'x' is neither a number",
    "documents 3x4": r"Documents: lengths\[0\] must be an integer, got \(3, 4\)",
    "neighborhood 0": "kernel_size must be at least 1 or -1, got 0",
    "(1, 2)": "not a pattern",
    "Neighborhood(5": "not a pattern",
    "Neighborhood()": "Neighborhood lacks a value for kernel_size",
    "Neighborhood(5, size=3)": "takes kernel_size, stride, dilation, is_causal, boundary; got 'size'",
    "Sinks(1, 2)": "Sinks takes n, got 2 values",
    "Full(1)": "Full takes nothing, got 1 values",
    "Neighborhood(5, kernel_size=3)": "does not name each value of Neighborhood once",
    "Neighborhood(**{'kernel_size': 3})": "does not name each value of Neighborhood once",
    "Neighborhood(5.0)": "Neighborhood: kernel_size must be an integer, got 5.0",
    "Neighborhood(3 | 4)": "& and | combine patterns, got '3 | 4'",
    "Sliding(5) & 3": r"& and \| combine patterns",
    "Sliding(5) + Sinks(1)": "not a pattern or a literal",
    "Both(())": "Both needs at least one pattern",
    "Either((Sinks(1), 2))": "Either: a combination is made of patterns, got 2",
    "__import__('os')": "unknown pattern '__import__'; known are Full, Causal, Neighborhood",
    "Sinks(len('four'))": "unknown pattern 'len'",
    "Sinks(n)": "not a pattern or a literal: 'n'",
}


@pytest.mark.parametrize(("pattern", "spec"), SPECS.items(), ids=str)
def test_a_pattern_prints_its_spec_which_reads_back_as_the_same_pattern(pattern, spec):
    assert pattern.spec == repr(pattern) == spec
    assert from_spec(spec) == parse(spec) == pattern
    assert type(from_spec(spec)) is type(pattern)


@pytest.mark.parametrize(("words", "pattern"), WORDS.items(), ids=list(WORDS))
def test_words_say_what_a_call_would_say(words, pattern):
    assert parse(words) == pattern


@pytest.mark.parametrize(("text", "message"), NOT_PATTERNS.items(), ids=list(NOT_PATTERNS))
def test_what_is_not_a_pattern_is_a_value_error_that_says_why(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("spec", ["3", "'Full()'", "(Full(), Full())", "None", "Full"])
def test_a_spec_is_a_pattern_and_nothing_else(spec):
    with pytest.raises(ValueError, match="not a pattern"):
        from_spec(spec)
