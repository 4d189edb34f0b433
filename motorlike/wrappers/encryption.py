"""`MotorClientEncryption`: explicit encryption of single values.

Needs the extra `encryption`, which installs `pymongocrypt`.

Rule: one line per method; what PyMongo documents is not documented again.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

from pymongo.typings import _DocumentType, _DocumentTypeArg

from motorlike import driver
from motorlike.declare import Async, Wrapper, unwrap_all, wrap
from motorlike.loops import Loops, TornadoLoops

if TYPE_CHECKING:
    from uuid import UUID

    from bson.binary import Binary
    from bson.codec_options import CodecOptions
    from pymongo.encryption_options import RangeOpts, StringOpts

    from motorlike.wrappers.client import MotorClient
    from motorlike.wrappers.collection import MotorCollection
    from motorlike.wrappers.database import MotorDatabase

__all__ = ["MotorClientEncryption"]

ClientEncryption = driver.load("pymongo.synchronous.encryption").ClientEncryption


class MotorClientEncryption(Wrapper, Generic[_DocumentType], wraps=ClientEncryption):
    """Explicit client-side encryption: `pymongo.encryption.ClientEncryption`, to be awaited."""

    _loops: ClassVar[type[Loops]] = TornadoLoops

    add_key_alt_name = Async()
    close = Async()
    create_data_key = Async()
    decrypt = Async()
    delete_key = Async()
    encrypt_expression = Async()
    get_key = Async()
    get_key_by_alt_name = Async()
    get_keys = Async(wraps=True)
    remove_key_alt_name = Async()
    rewrap_many_data_key = Async()

    def __init__(
        self,
        kms_providers: Mapping[str, Any],
        key_vault_namespace: str,
        key_vault_client: MotorClient[_DocumentTypeArg],
        codec_options: CodecOptions[_DocumentTypeArg],
        io_loop: Any = None,
        kms_tls_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Encrypt with keys from *key_vault_namespace*, which *key_vault_client* reads.

        Args: as `pymongo.encryption.ClientEncryption`, and
            io_loop: As for `MotorClient`. Operations run where those of
                *key_vault_client* do.

        Raises:
            ConfigurationError: `pymongocrypt` is not installed.
        """
        if not isinstance(getattr(key_vault_client, "delegate", None), driver.MongoClient):
            raise TypeError(f"key_vault_client must be a MotorClient, not {key_vault_client!r}")
        if io_loop is not None:
            self._loops.check(io_loop)
        self._io_loop = io_loop
        self._client = key_vault_client
        self._binding = key_vault_client._binding
        self.delegate = ClientEncryption(
            kms_providers,
            key_vault_namespace,
            key_vault_client.delegate,
            codec_options,
            kms_tls_options,
            **kwargs,
        )

    @property
    def io_loop(self) -> Any:
        """The event loop that was given, else that of the key vault's client."""
        return self._client.io_loop if self._io_loop is None else self._io_loop

    def get_io_loop(self) -> Any:
        """Return `io_loop`."""
        return self.io_loop

    def _root(self) -> Wrapper:
        return self._client

    def encrypt(
        self,
        value: Any,
        algorithm: str,
        key_id: Binary | UUID | None = None,
        key_alt_name: str | None = None,
        query_type: str | None = None,
        contention_factor: int | None = None,
        range_opts: RangeOpts | None = None,
        string_opts: StringOpts | None = None,
        **kwargs: Any,
    ) -> Future[Binary]:
        """Encrypt a value with a key, given by its id or its other name.

        Args: as `pymongo.encryption.ClientEncryption.encrypt`. It is written
            out because PyMongo 4.18 has one more than 4.20.
        """
        options = (key_id, key_alt_name, query_type, contention_factor, range_opts, string_opts)
        return self._binding.spawn(self.delegate.encrypt, (value, algorithm, *options), kwargs)

    def create_encrypted_collection(
        self,
        database: MotorDatabase[_DocumentTypeArg],
        name: str,
        encrypted_fields: Mapping[str, Any],
        kms_provider: str | None = None,
        master_key: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Future[tuple[MotorCollection[_DocumentTypeArg], Mapping[str, Any]]]:
        """Create a collection with encrypted fields, and data keys where they have none.

        Returns:
            A Future of the collection and its ``encryptedFields``.
        """
        fields = (name, encrypted_fields, kms_provider, master_key)
        return self._binding.spawn(self._create, (database, *fields), kwargs)

    def _create(self, database: Any, *args: Any, **kwargs: Any) -> Any:
        (delegate, *args_), kwargs = unwrap_all((database, *args), kwargs)
        made, fields = self.delegate.create_encrypted_collection(delegate, *args_, **kwargs)
        return wrap(made, database), fields

    __hash__ = object.__hash__

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
