"""What motorlike makes public: this list, and no more.

A name is public if it stands in the `__all__` of its module. Users rely on
those of `motorlike` and of the modules that the guide names; the others keep
one part of motorlike from reaching into another.

Rule: a name enters or leaves the list together with its `__all__`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import motorlike

PUBLIC = {
    "motorlike": """
        BlockingExtension ConcurrentUse get_version_string install_as_motor LoopClosed LoopMismatch
        MotorChangeStream MotorClient MotorClientEncryption MotorClientSession MotorCollection
        MotorCommandCursor MotorCursor
        MotorDatabase MotorGridFSBucket MotorGridIn MotorGridOut MotorGridOutCursor
        MotorLatentCommandCursor MotorlikeError MotorRawBatchCommandCursor MotorRawBatchCursor
        NotInGreenlet UntestedVersionWarning __version__ version version_tuple
    """,
    "motorlike.ahead": """
        ReadAhead
    """,
    "motorlike.aiohttp": """
        AIOHTTPGridFS get_cache_time get_gridfs_file set_extra_headers
    """,
    "motorlike.batches": """
        Batches TAILABLE
    """,
    "motorlike.conditional": """
        Answer answer cache_headers content_type etag http_date
    """,
    "motorlike.core": """
        AgnosticChangeStream AgnosticClient AgnosticClientEncryption AgnosticClientSession
        AgnosticCollection AgnosticCommandCursor AgnosticCursor AgnosticDatabase
        AgnosticLatentCommandCursor AgnosticRawBatchCommandCursor AgnosticRawBatchCursor
    """,
    "motorlike.declare": """
        Async Call Chain Declaration EnteringFuture InTurn is_bound named_after parameters_of
        Property reached_by_attribute unwrap_all wrap Wrapper
    """,
    "motorlike.demo.app": """
        application counts Document
    """,
    "motorlike.demo.command": """
        main
    """,
    "motorlike.demo.connections": """
        ConnectionCount
    """,
    "motorlike.demo.interrupt": """
        Interrupt
    """,
    "motorlike.demo.load": """
        Load plan Request send
    """,
    "motorlike.demo.report": """
        brief differences failures Findings percentile report versions
    """,
    "motorlike.demo.site": """
        CannotRun listening serving Site
    """,
    "motorlike.driver": """
        Binding close destination discard leaving_packed load MongoClient Packed source
        TESTED_VERSIONS
    """,
    "motorlike.driver.binding": """
        Binding
    """,
    "motorlike.driver.blocking": """
        replacements stand_ins
    """,
    "motorlike.driver.client": """
        close discard MongoClient reopen
    """,
    "motorlike.driver.encryption_options": """
        AutoEncryptionOpts green
    """,
    "motorlike.driver.files": """
        destination source
    """,
    "motorlike.driver.idle": """
        has_plain_accounts put_back take_idle
    """,
    "motorlike.driver.loader": """
        load make_loader TESTED_VERSIONS
    """,
    "motorlike.driver.growth": """
        EAGER_CONNECTIONS Growth TICK_SECONDS
    """,
    "motorlike.driver.only_server": """
        OnlyServer
    """,
    "motorlike.driver.packed": """
        Packed leaving_packed
    """,
    "motorlike.driver.pool": """
        FairPool
    """,
    "motorlike.driver.requests": """
        HeldConnection member_for RequestPool
    """,
    "motorlike.driver.shared": """
        HARMLESS_IMPORTS PRIVATE_REASONS SHARED
    """,
    "motorlike.driver.turns": """
        QueuedOperation Turns
    """,
    "motorlike.errors": """
        BlockingExtension ConcurrentUse LoopClosed LoopMismatch MotorlikeError NotInGreenlet
        UntestedVersionWarning
    """,
    "motorlike.generators": """
        start_unseen
    """,
    "motorlike.green": """
        GreenFuture in_greenlet load local offload sleep spawn trace wait
    """,
    "motorlike.green.descriptor": """
        Descriptor
    """,
    "motorlike.green.extensions": """
        socket_calls
    """,
    "motorlike.green.hub": """
        current_hub current_worker GreenFuture Hub offload open_hubs sleep spawn wait Waiter
    """,
    "motorlike.green.importer": """
        load Loader STAND_INS
    """,
    "motorlike.green.local": """
        local
    """,
    "motorlike.green.locks": """
        Condition get_ident Lock LoopLock RLock wait_seconds
    """,
    "motorlike.green.names": """
        getaddrinfo getfqdn gethostbyaddr gethostbyname gethostbyname_ex getnameinfo resolve
    """,
    "motorlike.green.outbox": """
        COMPANY Outbox
    """,
    "motorlike.green.readiness": """
        bad_descriptor EventStream remaining_seconds
    """,
    "motorlike.green.results": """
        Results
    """,
    "motorlike.green.shutdown": """
        Closeable ShutdownHook this_thread
    """,
    "motorlike.green.signals": """
        BoundedSemaphore Event Semaphore
    """,
    "motorlike.green.slice": """
        Slice SLICE_SECONDS
    """,
    "motorlike.green.ssl": """
        create_default_context SSLContext SSLSocket
    """,
    "motorlike.green.stream": """
        GreenStream PlainStream
    """,
    "motorlike.green.threading": """
        active_count BoundedSemaphore collect_starts Condition current_thread enumerate Event
        get_ident get_native_id local Lock main_thread RLock Semaphore Thread ThreadError
        TIMEOUT_MAX Timer
    """,
    "motorlike.green.time": """
        sleep
    """,
    "motorlike.green.tls": """
        TLSStream
    """,
    "motorlike.green.trace": """
        Trace trace
    """,
    "motorlike.green.trace_frames": """
        location operation routine Stack stack_of stack_of_thread waits_in
    """,
    "motorlike.green.trace_watchdog": """
        Turn Watchdog
    """,
    "motorlike.green.worker": """
        Beginning current_worker GreenFuture in_greenlet is_job_over Job Waiter Worker
    """,
    "motorlike.heap": """
        keep_large_blocks
    """,
    "motorlike.install": """
        install_as_motor
    """,
    "motorlike.later": """
        import_later
    """,
    "motorlike.libraries": """
        load MongoClient
    """,
    "motorlike.loops": """
        AsyncIOLoops LaterBinding Loops TornadoLoops
    """,
    "motorlike.motor_asyncio": """
        AsyncIOMotorChangeStream AsyncIOMotorClient AsyncIOMotorClientEncryption
        AsyncIOMotorClientSession AsyncIOMotorCollection AsyncIOMotorCommandCursor
        AsyncIOMotorCursor AsyncIOMotorDatabase AsyncIOMotorGridFSBucket AsyncIOMotorGridIn
        AsyncIOMotorGridOut AsyncIOMotorGridOutCursor AsyncIOMotorLatentCommandCursor
        AsyncIOMotorRawBatchCommandCursor AsyncIOMotorRawBatchCursor
    """,
    "motorlike.motor_gridfs": """
        AgnosticGridFSBucket AgnosticGridIn AgnosticGridOut AgnosticGridOutCursor
    """,
    "motorlike.motor_tornado": """
        MotorChangeStream MotorClient MotorClientEncryption MotorClientSession MotorCollection
        MotorCommandCursor MotorCursor MotorDatabase MotorGridFSBucket MotorGridIn MotorGridOut
        MotorGridOutCursor MotorLatentCommandCursor MotorRawBatchCommandCursor
        MotorRawBatchCursor
    """,
    "motorlike.pace": """
        Pace
    """,
    "motorlike.pool": """
        ConnectionPool MappedPool PoolClosed PoolError PoolStats PoolTimeout retry TooManyWaiters
    """,
    "motorlike.pool.backoff": """
        Backoff
    """,
    "motorlike.pool.connection_pool": """
        ConnectionPool
    """,
    "motorlike.pool.errors": """
        outside_greenlet PoolClosed PoolError PoolTimeout TooManyWaiters
    """,
    "motorlike.pool.keepalive": """
        Alarm Keeper
    """,
    "motorlike.pool.machinery": """
        Machinery
    """,
    "motorlike.pool.mapped": """
        Lease MappedPool MappedReservation
    """,
    "motorlike.pool.reservation": """
        Reservation
    """,
    "motorlike.pool.retry": """
        retry
    """,
    "motorlike.pool.settings": """
        check_size PoolStats Settings
    """,
    "motorlike.pool.shelf": """
        Order Shelf Slot
    """,
    "motorlike.pool.waiters": """
        Line Turn
    """,
    "motorlike.pool.workshop": """
        Hooks Workshop
    """,
    "motorlike.request_map": """
        current_owner Held Holdings Request RequestMap
    """,
    "motorlike.testing": """
        Deployment find_mongod Member MongodFailed MongodNotFound PortTaken replica_set
        standalone
    """,
    "motorlike.testing.certificates": """
        Certificates write_certificates
    """,
    "motorlike.testing.mongod": """
        Deployment find_mongod main Member MongodFailed MongodNotFound PortTaken replica_set
        standalone
    """,
    "motorlike.version": """
        get_version_string __version__ version version_tuple
    """,
    "motorlike.web": """
        GridFSHandler
    """,
    "motorlike.wrappers": """
        MotorChangeStream MotorClient MotorClientSession MotorCollection
        MotorCommandCursor MotorCursor MotorDatabase MotorGridFSBucket MotorGridIn MotorGridOut
        MotorGridOutCursor MotorLatentCommandCursor MotorRawBatchCommandCursor
        MotorRawBatchCursor
    """,
    "motorlike.wrappers.change_stream": """
        MotorChangeStream Watch
    """,
    "motorlike.wrappers.client": """
        MotorClient
    """,
    "motorlike.wrappers.client_session": """
        MotorClientSession
    """,
    "motorlike.wrappers.collection": """
        MotorCollection
    """,
    "motorlike.wrappers.cursor": """
        MotorCommandCursor MotorCursor MotorRawBatchCommandCursor MotorRawBatchCursor
    """,
    "motorlike.wrappers.database": """
        MotorDatabase
    """,
    "motorlike.wrappers.encryption": """
        MotorClientEncryption
    """,
    "motorlike.wrappers.encryption_for_asyncio": """
        AsyncIOMotorClientEncryption
    """,
    "motorlike.wrappers.for_asyncio": """
        AsyncIOMotorChangeStream AsyncIOMotorClient
        AsyncIOMotorClientSession AsyncIOMotorCollection AsyncIOMotorCommandCursor
        AsyncIOMotorCursor AsyncIOMotorDatabase AsyncIOMotorGridFSBucket AsyncIOMotorGridIn
        AsyncIOMotorGridOut AsyncIOMotorGridOutCursor AsyncIOMotorLatentCommandCursor
        AsyncIOMotorRawBatchCommandCursor AsyncIOMotorRawBatchCursor
    """,
    "motorlike.wrappers.gridfs": """
        MotorGridFSBucket MotorGridOutCursor
    """,
    "motorlike.wrappers.gridfs_files": """
        MotorGridIn MotorGridOut
    """,
    "motorlike.wrappers.latent_cursor": """
        Latent MotorLatentCommandCursor
    """,
}

# Stand-ins whose names are those of the standard library's module, on the
# Python and the platform that run.
MIRRORS = {
    "motorlike.green.queue": "queue",
    "motorlike.green.select": "select",
    "motorlike.green.socket": "socket",
}

# Modules whose classes and functions the standard library documents.
STANDARD = {
    "motorlike.green.locks": "threading",
    "motorlike.green.names": "socket",
    "motorlike.green.queue": "queue",
    "motorlike.green.select": "select",
    "motorlike.green.signals": "threading",
    "motorlike.green.socket": "socket",
    "motorlike.green.ssl": "ssl",
    "motorlike.green.threading": "threading",
    "motorlike.green.time": "time",
}


def all_modules() -> list[str]:
    found = (each.name for each in pkgutil.walk_packages(motorlike.__path__, "motorlike."))
    return ["motorlike", *(name for name in found if "._" not in name)]


def modules_with_names() -> Iterator[ModuleType]:
    for name in all_modules():
        module = importlib.import_module(name)
        if hasattr(module, "__all__"):
            yield module


def public_objects() -> list[Any]:
    """One parameter for each class and function of motorlike's own that is public."""
    found = {}
    for module in modules_with_names():
        for name in module.__all__:
            value = getattr(module, name)
            is_own = getattr(value, "__module__", "").startswith("motorlike")
            if is_own and (inspect.isroutine(value) or inspect.isclass(value)):
                found.setdefault(value, pytest.param(value, id=f"{module.__name__}.{name}"))
    return list(found.values())


def is_documented(value: Any) -> bool:
    if inspect.getdoc(value):
        return True
    function = getattr(value, "fget", value)
    standard = importlib.import_module(STANDARD.get(function.__module__, "builtins"))
    for part in function.__qualname__.split("."):
        standard = getattr(standard, part, None)
    return standard is not None


def public_members(cls: type) -> dict[str, Any]:
    """The methods and properties that *cls* itself defines."""
    plain = {name: getattr(value, "__func__", value) for name, value in vars(cls).items()}
    return {
        name: value
        for name, value in plain.items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
    }


def test_list_names_every_module_that_has_public_names() -> None:
    listed = PUBLIC.keys() | MIRRORS.keys()
    assert listed == {module.__name__ for module in modules_with_names()}


@pytest.mark.parametrize("name", PUBLIC)
def test_module_makes_public_what_the_list_says(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name].split())


@pytest.mark.parametrize(("name", "standard"), MIRRORS.items())
def test_stand_in_makes_public_what_the_standard_library_has(name: str, standard: str) -> None:
    module = importlib.import_module(name)
    assert set(module.__all__) <= set(dir(importlib.import_module(standard)))


@pytest.mark.parametrize("name", [*PUBLIC, *MIRRORS])
def test_public_names_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("value", public_objects())
def test_public_classes_functions_and_methods_have_docstrings(value: Any) -> None:
    assert is_documented(value)
    members = public_members(value) if inspect.isclass(value) else {}
    bare = [name for name, member in members.items() if not is_documented(member)]
    assert bare == []


@pytest.mark.parametrize("name", all_modules())
def test_module_says_what_it_is(name: str) -> None:
    assert importlib.import_module(name).__doc__
