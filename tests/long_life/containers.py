"""Every container that the product holds on to, by where it is: a walk over the graph of its objects.

A place is a path such as `Reporter._deliveries.open`. All keys and positions of a container are one place,
written `[]`: what is summed up there is the sizes of all containers of one kind, of however many restores.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PACKAGE: Final = "agent_reporter"
DEPTH: Final = 14
_SIZED: Final = (dict, list, set, frozenset, deque)
_ITEMS: Final = (list, set, frozenset, deque, tuple)
_PLAIN: Final = (str, bytes, int, float, complex, type(None), type, types.ModuleType)
_CALLS: Final = (types.MethodType, types.FunctionType, functools.partial)
_NOT_FOLLOWED: Final = frozenset(
    {"tests", "logging", "threading", "builtins", "_thread", "pydantic", "re", "enum"}
)
"""Packages whose objects are as they are."""
_CACHE: Final = type(functools.lru_cache(lambda: None))


def sizes(roots: Sequence[tuple[str, object]]) -> Counter[str]:
    """How much is in the containers that are reached from `roots`, and from what the package's modules hold."""
    found: Counter[str] = Counter()
    seen: set[int] = {id(found)}
    pending: deque[tuple[str, object, int]] = deque((place, each, 0) for place, each in roots)
    pending.extend((place, each, 0) for place, each in _held_by_modules())
    while pending:
        place, each, depth = pending.popleft()
        if isinstance(each, _PLAIN) or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, _CACHE):
            found[place] += each.cache_info().currsize
            continue
        if isinstance(each, _SIZED):
            found[place] += len(each)
        if depth < DEPTH:
            pending.extend((place + step, part, depth + 1) for step, part in _parts(each))
    return found


def _held_by_modules() -> Iterator[tuple[str, object]]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != PACKAGE or name.startswith(f"{PACKAGE}.reference"):
            continue
        for held, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == name:
                for attribute, part in list(vars(value).items()):
                    if isinstance(part, (*_SIZED, _CACHE)) and not attribute.startswith(("_abc", "__")):
                        yield f"{name}.{held}.{attribute}", part
            elif not isinstance(value, types.FunctionType) and not held.startswith("__"):
                yield f"{name}.{held}", value


def _parts(each: Any) -> Iterator[tuple[str, object]]:
    """What an object holds; nothing of what belongs to the simulation or to the machinery below."""
    if isinstance(each, dict):
        yield from (("[]", part) for pair in list(each.items()) for part in pair)
    elif isinstance(each, _ITEMS):
        yield from (("[]", item) for item in list(each))
    elif isinstance(each, _CALLS):
        yield from _bound(each)
    elif isinstance(each, types.CoroutineType):
        yield from _variables(each)
    elif hasattr(each, "get_coro"):
        yield place_of(each), each.get_coro()
    elif type(each).__module__.partition(".")[0] not in _NOT_FOLLOWED:
        yield from _attributes(each)


def place_of(task: Any) -> str:
    """A task, without the restore that it is for."""
    return f"<{task.get_name().split()[0]}>"


def _bound(call: Any) -> Iterator[tuple[str, object]]:
    """What a call takes along."""
    if isinstance(call, types.MethodType):
        yield f".{call.__name__}", call.__self__
    elif isinstance(call, functools.partial):
        yield from (("()", part) for part in (call.func, call.args, call.keywords))
    else:
        for name, cell in zip(call.__code__.co_freevars, call.__closure__ or (), strict=True):
            with suppress(ValueError):  # it is not bound yet
                yield f"({name})", cell.cell_contents


def _variables(coroutine: Any) -> Iterator[tuple[str, object]]:
    if coroutine.cr_frame is not None:
        for name, value in list(coroutine.cr_frame.f_locals.items()):
            yield f".{coroutine.__name__}.{name}", value
    if coroutine.cr_await is not None:
        yield "", coroutine.cr_await


def _attributes(each: object) -> Iterator[tuple[str, object]]:
    for name, value in list(getattr(each, "__dict__", {}).items()):
        yield f".{name}", value
    for kind in type(each).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(each, name):
                yield f".{name}", getattr(each, name)
