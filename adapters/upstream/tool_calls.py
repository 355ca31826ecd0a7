"""Calls of tools, put together from the pieces in which they are streamed."""

from typing import Any, Final

from msgspec import Struct

from adapters.upstream.answer import Allowance

_BYTES_OF_AN_EMPTY_CALL: Final = 64


class CalledFunction(Struct, frozen=True):
    """A function and its arguments, which are a JSON text; or a piece of that."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, frozen=True):
    """A call, or a piece of the one with this index."""

    index: int | None = None
    id: str | None = None
    function: CalledFunction | None = None


_NOTHING: Final = CalledFunction()


class _Growing:
    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class ToolCalls:
    """The calls of one answer, in the order of their indexes."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._calls: dict[int, _Growing] = {}

    def take(self, call: ToolCall) -> None:
        """Add a call, or a piece of one. Raises `ResultTooLarge`."""
        index = len(self._calls) if call.index is None else call.index
        if index not in self._calls:
            self._allowance.spend(_BYTES_OF_AN_EMPTY_CALL)
            self._calls[index] = _Growing()
        known, function = self._calls[index], call.function or _NOTHING
        texts = (call.id or "", function.name or "", function.arguments or "")
        self._allowance.spend(sum(len(text.encode()) for text in texts))
        known.id = known.id or texts[0]
        known.name = known.name or texts[1]
        known.arguments.append(texts[2])

    def all(self) -> list[dict[str, Any]]:
        """The calls as the chat completions API would have told them whole."""
        return [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
            for _, call in sorted(self._calls.items())
        ]
