"""How a wrapper class is declared, and how objects are wrapped and unwrapped.

A wrapper declares one line per method::

    class MotorCollection(Wrapper, wraps=Collection):
        insert_one = InTurn()

Each line is resolved from the installed PyMongo when the class is made, so
signatures and documentation follow that version.

Rule: what a method becomes is said by its declaration alone, never by its
name or by the class of its arguments.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from motorlike.driver import Binding

__all__ = [
    "Async",
    "Call",
    "Chain",
    "Declaration",
    "EnteringFuture",
    "InTurn",
    "Property",
    "Wrapper",
    "is_bound",
    "named_after",
    "parameters_of",
    "reached_by_attribute",
    "unwrap_all",
    "wrap",
]

_Method = Callable[..., Any]
_MethodT = TypeVar("_MethodT", bound=_Method)
_T = TypeVar("_T")
_WrapperT = TypeVar("_WrapperT", bound="Wrapper")
_MISSING = object()
# What may say where an operation goes.
_BINDING_ARGUMENTS = frozenset({"session", "read_preference"})


class Declaration:
    """One line of a wrapper class.

    Args:
        attribute: PyMongo's name for it, where that differs.
        optional: Leave it out where the installed PyMongo does not have it.
    """

    kind: ClassVar[str]
    # What it returns, around what PyMongo's method does.
    returns: str = "{}"

    def __init__(self, attribute: str | None = None, *, optional: bool = False) -> None:
        self.attribute = attribute
        self.optional = optional

    def resolve(self, name: str, original: Any) -> Any:
        """Return what takes the declaration's place on the class."""
        raise NotImplementedError

    if TYPE_CHECKING:
        # Where the wrappers call their own declared methods. Everyone else
        # sees the generated stubs.
        def __get__(self, instance: object, owner: type | None = None) -> Any: ...


class Property(Declaration):
    """A read-only property: the delegate's, wrapped."""

    kind = "property"

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name

        def get(self: Wrapper) -> Any:
            return wrap(getattr(self.delegate, attribute), self)

        # A plain value's docstring is that of its class.
        described = _first_paragraph(original) if isinstance(original, property) else ""
        return property(get, doc=described or f"PyMongo's `{attribute}`.")


class Call(Declaration):
    """A plain call, which does no I/O. Its result is wrapped."""

    kind = "call"

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name

        def method(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = unwrap_all(args, kwargs)
            return wrap(getattr(self.delegate, attribute)(*args, **kwargs), self)

        return named_after(original, method, name, self.returns)


class Chain(Declaration):
    """A method of a cursor that changes it and returns it."""

    kind = "chain"
    returns = "Self"

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name

        def method(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = unwrap_all(args, kwargs)
            getattr(self.delegate, attribute)(*args, **kwargs)
            return self

        return named_after(original, method, name, self.returns)


class Async(Declaration):
    """An operation. It starts at once in a child greenlet and returns a Future.

    Args:
        wraps: Whether the result may be an object that has a wrapper.
        enters: Whether ``async with`` takes the Future itself, as well as the
            result that it is awaited for.
    """

    kind = "async"

    def __init__(
        self,
        attribute: str | None = None,
        *,
        wraps: bool = False,
        enters: bool = False,
        optional: bool = False,
    ) -> None:
        super().__init__(attribute, optional=optional)
        self.wraps = wraps
        self.enters = enters
        self.returns = "EnteringFuture[{}]" if enters else "Future[{}]"

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name

        def method(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            for value in args:
                if isinstance(value, Wrapper):
                    args = tuple(map(_unwrap, args))
                    break
            if kwargs:
                kwargs = {key: _unwrap(value) for key, value in kwargs.items()}
            function = getattr(self.delegate, attribute)
            return self._binding.spawn(function, args, kwargs)

        def wrapping(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = unwrap_all(args, kwargs)
            function = getattr(self.delegate, attribute)
            return self._binding.spawn(_call_and_wrap, (self, function, args, kwargs), {})

        def entering(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            return EnteringFuture(wrapping(self, *args, **kwargs))

        chosen = entering if self.enters else wrapping if self.wraps else method
        return named_after(original, chosen, name, self.returns)


def is_bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call may name the connection or the member that it wants, by a session for one."""
    if kwargs and not kwargs.keys().isdisjoint(_BINDING_ARGUMENTS):
        return True
    for value in args:  # noqa: SIM110 - a generator would take longer than the call
        if isinstance(value, Wrapper):
            return True
    return False


class InTurn(Async):
    """An operation of a collection's. Where its pool is full, it begins in its turn."""

    def resolve(self, name: str, original: Any) -> Any:
        attribute = self.attribute or name

        def method(self: Wrapper, *args: Any, **kwargs: Any) -> Any:
            delegate = self.delegate
            function = getattr(delegate, attribute)
            if is_bound(args, kwargs):
                return self._binding.spawn(function, *unwrap_all(args, kwargs))
            return self._binding.spawn_in_turn(function, args, kwargs, delegate)

        return named_after(original, method, name, self.returns)


class EnteringFuture(asyncio.Future[_T]):
    """The Future of an async context manager, which may be entered unawaited.

    Both are the same: ``async with await client.start_session()`` and
    ``async with client.start_session()``.
    """

    def __init__(self, operation: asyncio.Future[_T]) -> None:
        super().__init__(loop=operation.get_loop())
        self._operation = operation
        if operation.done():
            self._copy(operation)
        else:
            operation.add_done_callback(self._copy)

    def _copy(self, operation: asyncio.Future[_T]) -> None:
        if self.done():
            return
        if operation.cancelled():
            super().cancel()
        elif (error := operation.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(operation.result())

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the operation."""
        return self._operation.cancel(msg) or super().cancel(msg)

    async def __aenter__(self) -> _T:
        entered: Any = await self  # Any: an async context manager
        await entered.__aenter__()
        return self.result()

    async def __aexit__(self, *exc_info: object) -> None:
        entered: Any = self.result()
        await entered.__aexit__(*exc_info)


def _call_and_wrap(
    parent: Wrapper, function: _Method, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return wrap(function(*args, **kwargs), parent)


def named_after(original: Any, method: _Method, name: str, returns: str = "{}") -> _Method:
    """Give *method* the signature and the first paragraph of PyMongo's *original*.

    Args:
        returns: What *method* returns, with ``{}`` for what *original* does.
    """
    functools.update_wrapper(method, original)
    method.__name__ = name
    # Not one of PyMongo's: pickle and debuggers would look there for it.
    method.__module__ = __name__
    method.__doc__ = _first_paragraph(original) or f"PyMongo's `{original.__qualname__}`."
    signature = inspect.signature(original)
    returned = returns.format(inspect.formatannotation(signature.return_annotation).strip("'\""))
    # update_wrapper() shares PyMongo's own dict.
    method.__annotations__ = {**original.__annotations__, "return": returned}
    method.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]  # inspect's own hook
    return method


def parameters_of(original: _Method) -> Callable[[_MethodT], _MethodT]:
    """Show PyMongo's parameters on a handwritten method that passes them all on.

    The method's own keyword-only parameters are shown after them.
    """

    def decorate(method: _MethodT) -> _MethodT:
        own = inspect.signature(method)
        added = [each for each in own.parameters.values() if each.kind is each.KEYWORD_ONLY]
        shown = [*inspect.signature(original).parameters.values(), *added]
        shown.sort(key=lambda each: each.kind)
        method.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]  # inspect's own hook
        return method

    return decorate


def _first_paragraph(original: Any) -> str:
    # The rest tells of PyMongo's versions and shows synchronous code.
    return (inspect.getdoc(original) or "").partition("\n\n")[0]


class Wrapper:
    """An object that users hold, around PyMongo's that runs green.

    Attributes:
        delegate: PyMongo's own object.
    """

    # The class of PyMongo's that it wraps, and its lines by name.
    __delegate_class__: ClassVar[type]
    __declarations__: ClassVar[dict[str, Declaration]] = {}
    # The wrapper class for each class of PyMongo's that has one. A second
    # family of wrappers has a registry of its own.
    __wrappers__: ClassVar[dict[type, type[Wrapper]]] = {}

    delegate: Any
    _binding: Binding

    def __init_subclass__(
        cls, wraps: type | None = None, also: tuple[type, ...] = (), **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        if wraps is not None:
            cls.__delegate_class__ = wraps
            cls.__wrappers__.update(dict.fromkeys((wraps, *also), cls))
        declared = {k: v for k, v in vars(cls).items() if isinstance(v, Declaration)}
        cls.__declarations__ = {**cls.__declarations__, **declared}
        if hasattr(cls, "__delegate_class__"):
            pending = cls.__declarations__ if wraps is not None else declared
            for name, declaration in pending.items():
                _resolve(cls, name, declaration)

    @classmethod
    def _wrap(cls, delegate: Any, parent: Wrapper) -> Wrapper:
        """Make a wrapper of *delegate*, which came from *parent*."""
        raise NotImplementedError

    def _root(self) -> Wrapper:
        """Return the client that this object came from."""
        raise NotImplementedError

    def get_io_loop(self) -> Any:
        """Return the client's event loop: an `IOLoop`, or asyncio's in that family."""
        return self._root().get_io_loop()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return bool(self.delegate == other.delegate)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.delegate)

    def __repr__(self) -> str:
        # Not the name: see `reached_by_attribute`.
        return f"{type(self).__qualname__.rpartition('.')[2]}({self.delegate!r})"


def _resolve(cls: type[Wrapper], name: str, declaration: Declaration) -> None:
    original = inspect.getattr_static(
        cls.__delegate_class__, declaration.attribute or name, _MISSING
    )
    if original is _MISSING:
        if not declaration.optional:
            raise AttributeError(
                f"{cls.__name__}.{name} is declared, but the installed PyMongo's "
                f"{cls.__delegate_class__.__name__} has no {declaration.attribute or name!r}"
            )
        if name in vars(cls):
            delattr(cls, name)
        return
    resolved = declaration.resolve(name, original)
    if not isinstance(resolved, property):
        resolved.__qualname__ = f"{cls.__qualname__}.{name}"
    setattr(cls, name, resolved)


def _unwrap(value: Any) -> Any:
    return value.delegate if isinstance(value, Wrapper) else value


def unwrap_all(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replace wrappers among the arguments by PyMongo's own objects."""
    return tuple(map(_unwrap, args)), {key: _unwrap(value) for key, value in kwargs.items()}


def wrap(value: Any, parent: Wrapper) -> Any:
    """Return the wrapper of *value*, if its class has one, else *value* itself."""
    wrapper = parent.__wrappers__.get(type(value))
    return value if wrapper is None else wrapper._wrap(value, parent)


def reached_by_attribute(wrapper: _WrapperT) -> _WrapperT:
    """Return *wrapper*, whose call will say that no method has its name.

    An object with a ``__call__`` could say so when it is called, but `callable`
    is true of it, and every unknown attribute would look like a method. Python
    words the error for one without by the name of its type alone.
    """
    cls: Any = type(wrapper)  # `Any`: mypy takes no type variable's class for hashable
    wrapper.__class__ = _with_explaining_name(cls)
    return wrapper


@functools.cache
def _with_explaining_name(cls: type[Wrapper]) -> Any:  # `Any`: a subclass of *cls*
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(f"{cls.__name__}, as no method has the name of this attribute,", (cls,), names)
