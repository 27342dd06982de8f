"""What TLS to the broker rests on: an authority of the site's own, and the broker's certificate that it signs.

    broker-ca.pem   in the state folder: the authority's private key and certificate, as `thermesh broker config` makes
                    them; readable by its owner only

Gateway and nodes trust this authority and no other, so it needs nobody's name and no date to be renewed at: key and
certificate are kept while they are valid, and the broker's while it is signed for all names that are asked for.
"""

import ipaddress
import ssl
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.files import write_private

NAME = "broker-ca.pem"
_YEARS = timedelta(days=20 * 365)
# What ends sooner than this is made anew.
_LEFT_MIN = timedelta(days=365)
# A clock that is somewhat late, as a board's is after a start, must not take it for one of tomorrow.
_EARLIER = timedelta(days=1)
_SIGNS_ONLY = x509.KeyUsage(
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


class CertificateError(ValueError):
    """Key or certificate cannot be used; one line that names the file and the remedy."""


class Pair(NamedTuple):
    """A private key and the certificate for it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """Both, the key first."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + self.certificate_pem.encode()

    @property
    def certificate_pem(self) -> str:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()


def load(state: Path) -> str:
    """The authority's certificate, in PEM; "" where there is none.

    Raises:
        CertificateError: the file cannot be read or is damaged.
    """
    pair = _read(state / NAME)
    return pair.certificate_pem if pair else ""


def load_or_make(state: Path, site_name: str) -> Pair:
    """The authority, made where there is none or it ends within a year.

    Raises:
        CertificateError: the file cannot be read or written, or is damaged.
    """
    path = state / NAME
    pair = _read(path)
    if pair is None or _ends_soon(pair.certificate):
        pair = _make(f"thermesh {site_name}", None, ())
        try:
            state.mkdir(parents=True, exist_ok=True)
            write_private(path, pair.pem)
        except OSError as error:
            raise CertificateError(f"{path}: {error.strerror or error}; make the folder writable") from None
    return pair


def write_broker(path: Path, authority: Pair, names: Collection[str]) -> None:
    """Write the broker's key and certificate, unless what is there is signed by the authority, for these names.

    Args:
        path: of one file for both, in PEM.
        authority: who signs.
        names: host names and addresses by which gateway and nodes reach the broker.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        pair = _read(path)
    except CertificateError:
        pair = None
    if pair is None or not _fits(pair.certificate, authority, names):
        write_private(path, _make(sorted(names)[0], authority, names).pem)


def tls_context(authority: str) -> ssl.SSLContext:
    """Settings for a connection to the broker that the authority (PEM) has signed for."""
    return ssl.create_default_context(cadata=authority)


def _read(path: Path) -> Pair | None:
    """What the file holds, None where there is none."""
    try:
        data = path.read_bytes()
        key, certificate = load_pem_private_key(data, None), x509.load_pem_x509_certificate(data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror or error}; make it readable") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        remedy = "put it back from a backup, or delete it and run `thermesh broker config`"
        raise CertificateError(f"{path}: holds no key with its certificate; {remedy}")
    return Pair(key, certificate)


def _make(name: str, authority: Pair | None, names: Collection[str]) -> Pair:
    """A new key with a certificate that the authority signs; without one, an authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    signing = authority.key if authority else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if authority:
        builder = builder.add_extension(_alternative_names(names), critical=False)
    else:
        builder = builder.add_extension(_SIGNS_ONLY, critical=True)
    return Pair(key, builder.sign(signing, SHA256()))


def _alternative_names(names: Collection[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for name in sorted(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def _fits(certificate: x509.Certificate, authority: Pair, names: Collection[str]) -> bool:
    try:
        certificate.verify_directly_issued_by(authority.certificate)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return found == _alternative_names(names) and not _ends_soon(certificate)


def _ends_soon(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc < datetime.now(UTC) + _LEFT_MIN
