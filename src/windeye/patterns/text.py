"""Patterns as text: the spec that a pattern prints, and the looser words of the command line."""

from __future__ import annotations

import ast
from dataclasses import MISSING, fields
from typing import Any

from windeye.patterns import algebra, sequence, windows
from windeye.patterns.pattern import Pattern

KINDS: dict[str, type[Pattern]] = {
    kind.__name__: kind
    for kind in (
        sequence.Full,
        sequence.Causal,
        windows.Neighborhood,
        windows.Sliding,
        windows.Blocks,
        windows.Halo,
        windows.TileWindow,
        windows.Inward,
        sequence.Documents,
        sequence.Sinks,
        sequence.Prefix,
        algebra.Both,
        algebra.Either,
    )
}
HOLDS_TENSOR = ("Allowed", "Expiry", "Routed")
"""Patterns that no text describes."""

_WORDS = {name.lower(): kind for name, kind in KINDS.items() if kind not in (algebra.Both, algebra.Either)}
_WORDS |= {"na": windows.Neighborhood, "window": windows.Sliding}
_FLAGS = {
    "causal": ("is_causal", True),
    "is_causal": ("is_causal", True),
    **{boundary: ("boundary", boundary) for boundary in windows.BOUNDARIES},
}


def evaluate_spec(spec: str) -> Pattern:
    """Read a spec such as ``Neighborhood(kernel_size=13, stride=4)``. Only names of patterns and literals.

    Raises:
        ValueError: the text is not a pattern; says what would be valid.
    """
    try:
        built = _build(ast.parse(spec, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"not a pattern: {spec!r}") from error
    if not isinstance(built, Pattern):
        raise ValueError(f"not a pattern: {spec!r}")
    return built


def _build(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in HOLDS_TENSOR:
            raise ValueError(f"{node.func.id} holds a tensor, which text cannot give; make it in Python")
        if node.func.id not in KINDS:
            raise ValueError(f"unknown pattern {node.func.id!r}; known are {', '.join(KINDS)}")
        kind = KINDS[node.func.id]
        names = [field.name for field in fields(kind)]
        if len(node.args) > len(names):
            raise ValueError(f"{kind.__name__} takes {', '.join(names) or 'nothing'}, got {len(node.args)} values")
        given = [*zip(names, node.args, strict=False), *((word.arg, word.value) for word in node.keywords)]
        values: dict[str, Any] = {}
        for name, value in given:
            if name is None or name in values:
                raise ValueError(f"{ast.unparse(node)!r} does not name each value of {kind.__name__} once")
            values[name] = _build(value)
        return _make(kind, values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        left, right = _build(node.left), _build(node.right)
        if not isinstance(left, Pattern) or not isinstance(right, Pattern):
            raise ValueError(f"& and | combine patterns, got {ast.unparse(node)!r}")
        return left & right if isinstance(node.op, ast.BitAnd) else left | right
    if isinstance(node, ast.Tuple):
        return tuple(_build(entry) for entry in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"not a pattern or a literal: {ast.unparse(node)!r}") from error


def _make(kind: type[Pattern], values: dict[str, Any]) -> Pattern:
    """The pattern of these values; whatever does not fit is a fault of the text, hence a ValueError."""
    takes = f"{kind.__name__} takes {', '.join(field.name for field in fields(kind)) or 'nothing'}"
    for name in values:
        if name not in (field.name for field in fields(kind)):
            raise ValueError(f"{takes}; got {name!r}")
    for field in fields(kind):
        if field.default is MISSING and field.name not in values:
            raise ValueError(f"{kind.__name__} lacks a value for {field.name}; {takes}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def parse(text: str) -> Pattern:
    """A pattern from words: a kind, its numbers (``16`` or ``16x8`` per axis), then named numbers and flags.

    ``&`` and ``|`` combine (``&`` binds tighter). A spec, with parentheses, is understood as well.

    Raises:
        ValueError: the words are not a pattern; says which word and what would be valid.

    Example:
        >>> parse("neighborhood 13 stride 4").spec
        'Neighborhood(kernel_size=13, stride=4)'
        >>> parse("sliding 256 | sinks 4").bind((1024,)).pairs()
        232570
    """
    if "(" in text:
        return evaluate_spec(text)
    either = [[_words(part) for part in side.split("&")] for side in text.split("|")]
    sides = [both[0] if len(both) == 1 else algebra.Both(tuple(both)) for both in either]
    return sides[0] if len(sides) == 1 else algebra.Either(tuple(sides))


def _words(text: str) -> Pattern:
    words = text.lower().split()
    if not words or words[0] not in _WORDS:
        got = repr(words[0]) if words else "nothing"
        raise ValueError(f"a pattern starts with one of {', '.join(sorted(_WORDS))}; got {got}")
    kind = _WORDS[words[0]]
    names = [field.name for field in fields(kind)]
    if kind is sequence.Documents:
        return _make(kind, {"lengths": tuple(_number(word) for word in words[1:])})
    values: dict[str, Any] = {}
    rest = words[1:]
    while rest:
        word = rest.pop(0)
        if rest and _FLAGS.get(rest[0], ("",))[0] == word:
            continue  # "boundary wrap" says no more than "wrap"
        if word in _FLAGS and _FLAGS[word][0] in names:
            name, value = _FLAGS[word]
        elif word in names:
            if not rest:
                raise ValueError(f"{word!r} needs a value after it, such as {word} 4")
            name, value = word, _number(rest.pop(0))
        elif word == "both" and kind is windows.Sliding:
            name, value = "is_causal", False
        else:
            free = [n for n in names if n not in values]
            name, value = (free[0] if free else ""), _number(word)
        if not name or name in values:
            raise ValueError(f"{word!r} is one word too many for {kind.__name__}({', '.join(names)})")
        values[name] = value
    return _make(kind, values)


def _number(word: str) -> int | tuple[int, ...]:
    try:
        entries = tuple(int(part) for part in word.split("x"))
    except ValueError:
        raise ValueError(f"{word!r} is neither a number such as 13 or 16x8 nor a known word") from None
    return entries if len(entries) > 1 else entries[0]
