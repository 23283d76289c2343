"""Certificates of a fleet: one authority, and one certificate that it has signed, for all of its machines.

The authority's key is thrown away at once. So nothing can be added to a fleet by it; for a new board the
folder is copied, and to lock one out a new folder is made.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import UsageError
from ..run.files import cannot, make_folder, replacing

CA, CERTIFICATE, KEY = "ca.pem", "certificate.pem", "key.pem"
YEARS = 10
CURVE = ec.SECP256R1


@dataclass(frozen=True)
class Certificates:
    """What was made. until: the day on which they end"""

    folder: Path
    until: datetime.date


def make_certificates(folder: Path) -> Certificates:
    """Write ca.pem, certificate.pem and key.pem. Raises UsageError when one of them is there already."""
    try:
        make_folder(folder)
    except OSError as error:
        raise cannot("make", folder, error) from error
    if there := [name for name in (CA, CERTIFICATE, KEY) if (folder / name).exists()]:
        raise UsageError(
            f"--output {folder} holds {there[0]} already, and machines of a fleet may have it. Nothing is "
            f"replaced. Choose another folder"
        )
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=365 * YEARS)
    authority_key, key = ec.generate_private_key(CURVE()), ec.generate_private_key(CURVE())
    authority_name, name = _name("sharpzo-edge fleet authority"), _name("sharpzo-edge fleet")

    def begun(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks of boards are late
            .not_valid_after(until)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        )

    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"),
        False,
    ) | {"decipher_only": False}
    signs = x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage)
    speaks = x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage)
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority = (
        begun(authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(signs, True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        begun(name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(speaks, True)
        .add_extension(x509.ExtendedKeyUsage(both_ends), False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    before = os.umask(0o077)  # the key is for this user alone
    for file, data in (
        (CA, authority.public_bytes(Encoding.PEM)),
        (CERTIFICATE, certificate.public_bytes(Encoding.PEM)),
        (KEY, private),
    ):
        with replacing(folder / file) as out:
            out.write(data)
    os.umask(before)
    return Certificates(folder, until.date())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
