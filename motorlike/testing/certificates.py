"""Make throw-away TLS certificates for a local mongod and its clients.

`motorlike.testing.mongod` imports this for ``tls=True`` only, for it needs
the `cryptography` package. Tests call it for a second authority, one that the
server does not trust.

Rule: the files are secrets of one test run. They go into a temporary folder
and are made anew each time.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as exc:
    raise ImportError(
        "TLS for a local mongod needs certificates, and the cryptography package that makes them "
        "cannot be imported. Run pip install 'motorlike[test]'."
    ) from exc

__all__ = ["Certificates", "write_certificates"]

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificates:
    """Paths of the PEM files of one authority.

    Attributes:
        ca_file: The authority's certificate.
        server_pem: Certificate and key for localhost, 127.0.0.1 and ::1.
        client_pem: Certificate and key for a client.
    """

    ca_file: str
    server_pem: str
    client_pem: str


@dataclass(frozen=True)
class _Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_certificates(folder: Path) -> Certificates:
    """Make an authority, a server and a client certificate in *folder*.

    Valid from yesterday for a year. The client's organization differs from
    the server's, as MONGODB-X509 wants it.
    """
    authority = _issue(_name("motorlike authority", "motorlike test authority"), None)
    server = _issue(_name("motorlike servers", "localhost"), authority)
    client = _issue(_name("motorlike clients", "motorlike client"), authority)
    return Certificates(
        ca_file=_write(folder / "ca.pem", authority, with_key=False),
        server_pem=_write(folder / "server.pem", server, with_key=True),
        client_pem=_write(folder / "client.pem", client, with_key=True),
    )


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _issue(name: x509.Name, issuer: _Issued | None) -> _Issued:
    """Sign a certificate by *issuer*, or make an authority if that is None."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = key if issuer is None else issuer.key
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=name if issuer is None else issuer.certificate.subject,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _DAY,
        not_valid_after=now + 365 * _DAY,
    )
    for extension, critical in _extensions(key.public_key(), signer.public_key(), issuer is None):
        builder = builder.add_extension(extension, critical)
    return _Issued(builder.sign(signer, hashes.SHA256()), key)


def _extensions(
    own: ec.EllipticCurvePublicKey, issuers: ec.EllipticCurvePublicKey, is_authority: bool
) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions that Python 3.13's strict verification demands."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_authority, path_length=None), True),
        (_key_usage(is_authority), True),
        (x509.SubjectKeyIdentifier.from_public_key(own), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers), False),
    ]
    if not is_authority:
        # Members of a replica set are clients of each other, with the
        # server's certificate.
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        extensions.append((x509.ExtendedKeyUsage(uses), False))
        extensions.append((_local_names(), False))
    return extensions


def _key_usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _local_names() -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
            x509.IPAddress(ipaddress.IPv6Address("::1")),
        ]
    )


def _write(path: Path, issued: _Issued, *, with_key: bool) -> str:
    pem = issued.certificate.public_bytes(serialization.Encoding.PEM)
    if with_key:
        pem += issued.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    # Readable by its owner alone from the start.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return str(path)
