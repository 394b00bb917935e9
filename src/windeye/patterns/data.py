"""Patterns that depend on data: what they say is in a tensor, which they carry."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from windeye.patterns.bound import Grid, Term
from windeye.patterns.pattern import Pattern

if TYPE_CHECKING:
    import torch


class DataPattern(Pattern):
    """A pattern whose first field is a tensor; a subclass is a frozen dataclass without ``eq`` and ``repr``.

    Two are equal when they hold the same tensor and their other fields are equal: comparing contents would read them
    back from their device, and nothing may be cached under a content that can change in place.
    """

    kinds: ClassVar[dict[str, type[DataPattern]]] = {}

    def __init_subclass__(cls) -> None:
        DataPattern.kinds[cls.__name__] = cls

    @property
    def tables(self) -> tuple[torch.Tensor, ...]:
        return (getattr(self, self.__match_args__[0]),)

    @property
    def spec(self) -> str:
        """Names the kind and everything but the tensor, which crosses the operator boundary beside it."""
        return self._shown(self.__match_args__[0])

    def __repr__(self) -> str:
        import torch

        if torch.compiler.is_compiling():  # a shape in words would tie the graph to it
            return self.spec
        (table,) = self.tables
        return self._shown(f"{str(table.dtype).removeprefix('torch.')} {list(table.shape)}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DataPattern) or type(other) is not type(self):
            return False
        return self.tables[0] is other.tables[0] and self._rest() == other._rest()

    def __hash__(self) -> int:
        return hash((id(self.tables[0]), self._rest()))

    def terms(self, _grid: Grid, _grid_kv: Grid) -> tuple[Term, ...]:
        raise ValueError(
            f"{type(self).__name__} has no interval table for all batch entries and heads; bind it and ask for one head"
        )

    def _shown(self, tensor: str) -> str:
        # Written so that torch.compile can trace it.
        return f"{type(self).__name__}({', '.join([tensor, *[repr(value) for value in self._rest()]])})"

    def _rest(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__[1:]])


def read_spec(spec: str, tables: Sequence[torch.Tensor]) -> DataPattern:
    """The pattern of a `DataPattern.spec` with the tensor that it carries."""
    kind, _, inner = spec.removesuffix(")").partition("(")
    _, _, rest = inner.partition(", ")
    make: Callable[..., DataPattern] = DataPattern.kinds[kind]
    return make(tables[0], *(literal_eval(f"({rest},)") if rest else ()))
