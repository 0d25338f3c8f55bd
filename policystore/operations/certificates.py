"""A certificate authority of the store's own, and a server certificate from it, for `quickstart --tls`.

The job hooks accept only https. On a network without certificates, this creates one that they can be set up to trust.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
# Clients refuse certificates that are good for more than 398 days.
SERVER_DAYS = 397
RENEW_BEFORE = timedelta(days=30)
CLOCK_DIFFERENCE = timedelta(hours=1)
HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of the certificate that clients must trust, and of the server's certificate and key."""

    authority: Path
    certificate: Path
    key: Path


def prepare(folder: Path, hosts: Iterable[str]) -> Certificates:
    """Return certificates for these host names and addresses; create those that are missing, expiring or for others.

    The authority is kept as long as it is valid, so that clients that trust it continue to trust the store.
    Raises ValueError with a sentence for a host name that no certificate can hold.
    """
    names = sorted({_canonical(host) for host in hosts})
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, authority_key = folder / "authority.pem", folder / "authority.key"
    paths = Certificates(authority=authority, certificate=folder / "server.pem", key=folder / "server.key")
    if not _is_good(authority, authority_key):
        _make_authority(authority, authority_key)
    if not _is_good(paths.certificate, paths.key, issuer=authority, names=names):
        _make_server(paths, authority_key, names)
    return paths


def _is_good(path: Path, key_path: Path, *, issuer: Path | None = None, names: list[str] | None = None) -> bool:
    """Return True if the certificate matches its key, does not expire soon, and is by this issuer for these names."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((issuer or path).read_bytes()))
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    if key.public_key() != certificate.public_key():
        return False
    if certificate.not_valid_after_utc - RENEW_BEFORE < datetime.now(UTC):
        return False
    return names is None or _names_of(certificate) == names


def _names_of(certificate: x509.Certificate) -> list[str]:
    listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return sorted(str(name.value) for name in listed)


def _make_authority(path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Policy Store local authority")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    _write_key(key_path, key)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _make_server(paths: Certificates, authority_key_path: Path, names: list[str]) -> None:
    authority = x509.load_pem_x509_certificate(paths.authority.read_bytes())
    authority_key = cast(
        ec.EllipticCurvePrivateKey,
        serialization.load_pem_private_key(authority_key_path.read_bytes(), password=None),
    )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Policy Store")])
    builder = (
        _builder(subject, authority.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    _write_key(paths.key, key)
    paths.certificate.write_bytes(builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_DIFFERENCE)
        .not_valid_after(now + timedelta(days=days))
    )


def _canonical(host: str) -> str:
    """Return an address or host name in the form that a certificate has."""
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    if not HOST_NAME.fullmatch(host):
        raise ValueError(f"{host!r} is neither an address nor a host name in ASCII letters.")
    return host.lower()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
