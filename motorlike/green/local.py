"""Attributes of each greenlet's own: `threading.local`, for child greenlets.

A worker greenlet runs one callable after another; what a callable set is gone
when it ends, as a thread's locals go with the thread.

Rule: a store belongs to one callable and one `local`, and dies with either.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from greenlet import getcurrent, greenlet

from motorlike.green.worker import Worker

__all__ = ["local"]

_Stores = WeakKeyDictionary["local", dict[str, Any]]

# The stores of greenlets that are nobody's child: the hub, or another library's.
_foreign: WeakKeyDictionary[greenlet, _Stores] = WeakKeyDictionary()


def _stores() -> _Stores:
    current = getcurrent()
    if isinstance(current, Worker):
        if current.locals is None:
            current.locals = WeakKeyDictionary()
        stores: _Stores = current.locals
        return stores
    return _foreign.setdefault(current, WeakKeyDictionary())


class local:  # noqa: N801 - the stdlib's name
    """An object whose attributes differ from greenlet to greenlet.

    A subclass's ``__init__`` runs once in each greenlet that uses it, with the
    arguments of the first call.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> local:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self = super().__new__(cls)
        object.__setattr__(self, "_arguments", (args, kwargs))
        _stores()[self] = {}
        return self

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "_arguments"):
            return object.__getattribute__(self, name)
        store = _store(self)
        if name == "__dict__":
            return store
        return store[name] if name in store else object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise AttributeError("the attributes of a greenlet cannot be replaced as a whole")
        store = _store(self)
        if hasattr(type(getattr(type(self), name, None)), "__set__"):
            # A property of the subclass decides itself what to keep.
            object.__setattr__(self, name, value)
        else:
            store[name] = value

    def __delattr__(self, name: str) -> None:
        store = _store(self)
        if hasattr(type(getattr(type(self), name, None)), "__delete__"):
            object.__delattr__(self, name)
            return
        if name not in store:
            raise AttributeError(f"this greenlet has set no attribute {name!r}")
        del store[name]


def _store(instance: local) -> dict[str, Any]:
    stores = _stores()
    store = stores.get(instance)
    if store is None:
        store = stores[instance] = {}
        args, kwargs = object.__getattribute__(instance, "_arguments")
        # On purpose: this is what threading.local does in each new thread.
        type(instance).__init__(instance, *args, **kwargs)
    return store
