"""Declarations become methods that look like PyMongo's and behave as declared.

The delegates here are plain classes, and the binding runs operations on the
spot: no server, no greenlet.
"""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Callable
from typing import Any

import pytest

from motorlike import (
    MotorClient,
    MotorClientSession,
    MotorCollection,
    MotorCommandCursor,
    MotorCursor,
    MotorDatabase,
    MotorLatentCommandCursor,
)
from motorlike.declare import Async, Call, Chain, Declaration, Property, Wrapper, parameters_of

GENERIC = [
    MotorClient,
    MotorCollection,
    MotorCommandCursor,
    MotorCursor,
    MotorDatabase,
    MotorLatentCommandCursor,
]


class Page:
    """What a book gives out, and takes."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def number(self) -> int:
        """Its number."""
        return self._number


class Book:
    """Stands in for one of PyMongo's classes."""

    SHELF = "left"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    @property
    def first(self) -> Page:
        """The first page.

        .. versionchanged:: 4.0
        """
        return Page(1)

    def read(self, page: Page | int, *, aloud: bool = False) -> str:
        """Read one page,
        from its top.

        Example::

            book.read(1)
        """
        self.calls.append(("read", page, aloud))
        return "text"

    def turn(self, page: Page | None = None) -> Page:
        return Page(2)

    def mark(self, page: Any) -> None:
        """Put a mark in."""
        self.calls.append(("mark", page))


class Binding:
    """Runs operations at once, and counts them."""

    def __init__(self) -> None:
        self.operations = 0

    def spawn(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, Any]:
        self.operations += 1
        return "future", function(*args, **kwargs)


class Family(Wrapper):
    __wrappers__ = {}

    def __init__(self, delegate: Any, binding: Any) -> None:
        self.delegate = delegate
        self._binding = binding

    @classmethod
    def _wrap(cls, delegate: Any, parent: Wrapper) -> Family:
        return cls(delegate, parent._binding)


class MotorPage(Family, wraps=Page):
    number = Property()


class MotorBook(Family, wraps=Book):
    SHELF = Property()
    first = Property()
    mark = Chain()
    read = Async()
    recite = Async("read")
    turn = Async(wraps=True)
    turn_at_once = Call("turn")
    burn = Async(optional=True)


@pytest.fixture
def book() -> MotorBook:
    return MotorBook(Book(), Binding())


def test_operation_is_handed_to_the_binding(book: MotorBook) -> None:
    assert book.read(7, aloud=True) == ("future", "text")
    assert book._binding.operations == 1
    assert book.delegate.calls == [("read", 7, True)]


def test_call_does_not_reach_the_binding(book: MotorBook) -> None:
    book.turn_at_once()
    assert book._binding.operations == 0


def test_chain_returns_the_wrapper_itself(book: MotorBook) -> None:
    assert book.mark(3) is book
    assert book.delegate.calls == [("mark", 3)]


def test_declaration_may_name_another_attribute(book: MotorBook) -> None:
    assert book.recite(7) == ("future", "text")
    assert MotorBook.recite.__name__ == "recite"


@pytest.mark.parametrize("give", [lambda p: ((p,), {}), lambda p: ((), {"page": p})])
@pytest.mark.parametrize("method", ["read", "mark"])
def test_wrappers_among_arguments_are_unwrapped(
    book: MotorBook, method: str, give: Callable[[Any], Any]
) -> None:
    page = book.first
    args, kwargs = give(page)
    getattr(book, method)(*args, **kwargs)
    assert book.delegate.calls[0][1] is page.delegate


def test_results_that_have_a_wrapper_are_wrapped(book: MotorBook) -> None:
    assert isinstance(book.first, MotorPage)
    assert isinstance(book.turn_at_once(), MotorPage)
    assert isinstance(book.turn()[1], MotorPage)


def test_wrappers_are_equal_if_their_delegates_are() -> None:
    page = Page(1)
    assert MotorPage(page, None) == MotorPage(page, None)
    assert MotorPage(page, None) != MotorPage(Page(1), None)
    assert hash(MotorPage(page, None)) == hash(MotorPage(page, None))


def test_subclass_inherits_declarations_without_repeating_them(book: MotorBook) -> None:
    class Novel(MotorBook):
        pass

    assert Novel(Book(), Binding()).read(1) == ("future", "text")


def test_subclass_that_wraps_another_class_follows_that_one() -> None:
    class Atlas(Book):
        def read(self, page: Page | int, *, scale: int = 1) -> str:  # type: ignore[override]
            """Read a map."""
            return "map"

    class MotorAtlas(MotorBook, wraps=Atlas):
        pass

    assert MotorAtlas.read.__doc__ == "Read a map."
    assert "scale" in inspect.signature(MotorAtlas.read).parameters
    assert "scale" not in inspect.signature(MotorBook.read).parameters


def test_missing_attribute_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"Broken\.reed is declared.*Book has no 'reed'"):

        class Broken(Family, wraps=Book):
            reed = Async()


def test_optional_attribute_that_is_missing_is_left_out(book: MotorBook) -> None:
    assert not hasattr(book, "burn")


def test_families_do_not_see_each_others_wrappers() -> None:
    assert Page not in Wrapper.__wrappers__
    assert MotorCollection not in Family.__wrappers__.values()


def test_signature_is_that_of_the_delegates_method() -> None:
    parameters = inspect.signature(MotorBook.read).parameters
    assert list(parameters) == ["self", "page", "aloud"]
    assert parameters["aloud"].default is False


@pytest.mark.parametrize(
    ("method", "returned"),
    [
        (MotorBook.read, "Future[str]"),
        (MotorBook.mark, "Self"),
        (MotorBook.turn_at_once, "Page"),
        (MotorCollection.insert_one, "Future[InsertOneResult]"),
        (MotorCollection.aggregate, "MotorLatentCommandCursor"),
    ],
)
def test_signature_says_what_the_declaration_makes_of_the_result(
    method: Callable[..., Any], returned: str
) -> None:
    assert inspect.signature(method).return_annotation == returned


def test_annotations_of_the_delegates_method_are_left_alone() -> None:
    assert Book.read.__annotations__["return"] == "str"
    assert MotorBook.read.__annotations__["return"] == "Future[str]"


def test_documentation_is_the_first_paragraph_only() -> None:
    assert MotorBook.read.__doc__ == "Read one page,\nfrom its top."
    assert MotorBook.first.__doc__ == "The first page."


def test_documentation_that_the_delegate_lacks_is_made_up_for() -> None:
    assert MotorBook.turn.__doc__ == "PyMongo's `Book.turn`."
    assert MotorBook.SHELF.__doc__ == "PyMongo's `SHELF`."


def test_names_and_origin_are_the_wrappers_own() -> None:
    assert MotorCollection.insert_one.__name__ == "insert_one"
    assert MotorCollection.insert_one.__qualname__ == "MotorCollection.insert_one"
    assert MotorCollection.insert_one.__module__ == "motorlike.declare"


def test_parameters_of_shows_the_originals_then_its_own() -> None:
    def original(self: Any, page: int, **kwargs: Any) -> None: ...

    @parameters_of(original)
    def method(self: Any, *args: Any, aloud: bool = False, **kwargs: Any) -> str:
        return ""

    assert list(inspect.signature(method).parameters) == ["self", "page", "aloud", "kwargs"]
    assert inspect.signature(method).return_annotation == "str"


def test_client_shows_pymongos_parameters() -> None:
    parameters = list(inspect.signature(MotorClient).parameters)
    assert parameters[:3] == ["host", "port", "document_class"]
    assert parameters[-2:] == ["auto_start_request", "kwargs"]
    assert (
        "max_commit_time_ms" in inspect.signature(MotorClientSession.start_transaction).parameters
    )


def test_help_shows_the_signature_and_says_nothing_of_delegates() -> None:
    text = pydoc.plain(pydoc.render_doc(MotorCollection.insert_one))
    # The annotations' spelling is that of the installed PyMongo.
    assert re.search(r"insert_one\(\s*self,\s*document: ", text)
    assert re.search(r"session: .*ClientSession.* = None", text)
    assert "Future[InsertOneResult]" in text
    assert "Insert a single document." in text
    assert "delegate" not in text
    assert "versionchanged" not in text


@pytest.mark.parametrize("wrapper", GENERIC)
def test_classes_can_be_subscripted(wrapper: Any) -> None:
    assert wrapper[dict].__origin__ is wrapper
    assert wrapper["Movie"].__origin__ is wrapper


def test_subscripted_client_makes_a_client() -> None:
    client = MotorClient[dict[str, Any]]("mongodb://localhost")
    assert type(client) is MotorClient


def test_unknown_attributes_are_not_callable() -> None:
    client: MotorClient[Any] = MotorClient()
    assert not callable(client.unheard_of)
    assert not callable(client.test.unheard_of)
    assert not callable(client.test.pages.unheard_of)
    with pytest.raises(TypeError, match="MotorCollection, as no method has the name"):
        client.test.pages.insertOne({})
    with pytest.raises(TypeError, match="MotorDatabase, as no method has the name"):
        client.unheard_of()
    assert not hasattr(client.test.pages.find(), "unheard_of")
    assert not hasattr(client.test.pages.aggregate([]), "unheard_of")


def test_what_an_attribute_returns_is_what_an_item_is() -> None:
    client: MotorClient[Any] = MotorClient()
    for holder in (client, client["test"], client["test"]["pages"]):
        by_attribute, by_item = holder.name_of_it, holder["name_of_it"]
        assert by_attribute == by_item
        assert by_item == by_attribute
        assert hash(by_attribute) == hash(by_item)
        assert repr(by_attribute) == repr(by_item)
        assert isinstance(by_attribute, type(by_item))
        assert type(by_attribute).__doc__ == type(by_item).__doc__


@pytest.mark.parametrize("name", ["_private", "__dunder__"])
def test_names_with_an_underscore_are_attribute_errors(name: str) -> None:
    client: MotorClient[Any] = MotorClient()
    for holder in (client, client.test, client.test.pages):
        with pytest.raises(AttributeError, match=name):
            getattr(holder, name)


def test_cursor_is_not_for_synchronous_loops() -> None:
    client: MotorClient[Any] = MotorClient()
    with pytest.raises(TypeError, match="not iterable"):
        iter(client.test.pages.find())


def test_every_declaration_was_resolved() -> None:
    left = [
        f"{wrapper.__name__}.{name}"
        for wrapper in Wrapper.__wrappers__.values()
        for name, value in vars(wrapper).items()
        if isinstance(value, Declaration)
    ]
    assert not left
