"""The base class of streams that yield a growing value and end with a validated one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, Generic, TypeVar

from completion.contract.stream import ResponseInfo
from completion.contract.turn import Turn

ValueT = TypeVar("ValueT")


class ValueStream(Generator[Any, None, None], Generic[ValueT]):
    """What AsyncModel needs to know of a StructuredStream: after the last value, ``value`` is the result."""

    response: ResponseInfo

    @property
    @abstractmethod
    def value(self) -> ValueT: ...

    @property
    @abstractmethod
    def turn(self) -> Turn: ...
