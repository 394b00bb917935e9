"""Classes by the name of their kind, and settings of them as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar, cast

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Kinds(dict[str, type[T]]):
    """Every registered class of one sort, by its ``kind``.

    Args:
        noun: what they are, for messages.

    Example:
        >>> from dataclasses import dataclass
        >>> shapes = Kinds("shape")
        >>> @shapes.register("disc")
        ... @dataclass(frozen=True)
        ... class Disc:
        ...     radius: float = 1.0
        >>> shapes.to_dict(Disc(2.0))
        {'kind': 'disc', 'radius': 2.0}
        >>> shapes.from_dict({"kind": "disc", "radius": 2.0}) == Disc(2.0)
        True
    """

    def __init__(self, noun: str) -> None:
        super().__init__()
        self.noun = noun

    def register(self, kind: str) -> Callable[[C], C]:
        """Make a class known under a name, which becomes its ``kind``.

        Raises:
            ValueError: the name is taken.
        """

        def named(cls: C) -> C:
            if kind in self:
                raise ValueError(f"{self.noun} {kind!r} is registered twice")
            cls.kind = kind  # type: ignore[attr-defined]
            self[kind] = cls
            return cls

        return named

    def named(self, kind: str) -> type[T]:
        """
        Raises:
            ValueError: an unknown kind; says which there are.
        """
        if kind not in self:
            raise ValueError(f"unknown {self.noun} {kind!r}; known are {', '.join(self)}")
        return self[kind]

    def to_dict(self, spec: T) -> dict[str, Any]:
        """The settings of a dataclass with its kind, for files."""
        return {"kind": cast(Any, spec).kind, **asdict(cast(Any, spec))}

    def from_dict(self, settings: dict[str, Any]) -> T:
        """What `to_dict` was made of, also when it went through JSON, which knows lists and no tuples.

        Raises:
            ValueError: an unknown kind. TypeError: a setting that this kind does not have.
        """
        settings = dict(settings)
        kind = settings.pop("kind")
        return self.named(kind)(**{name: _frozen(value) for name, value in settings.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
