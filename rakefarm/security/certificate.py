"""A certificate of the server's own, that nobody has signed: the proofs pin it (see `proof`), so it need only be there.

Made once with the `cryptography` library, which is an extra, and kept beside its private key in the server's state
directory, for its owner alone. In a process of its own, since the library is large and the workers would carry it.
"""

import os
from collections.abc import Mapping

from rakefarm.config import ConfigError
from rakefarm.security import keys
from rakefarm.security.aside import run_aside

FILE_NAME = "server.pem"
LIFE_DAYS = 36_500


def own_certificate(environ: Mapping[str, str]) -> str:
    """The path of this server's certificate and private key, made if they are not there. Raises ConfigError."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME") or "/var/lib", ".local", "state")
    directory = os.path.join(home, "rakefarm")
    path = os.path.join(directory, FILE_NAME)
    if os.path.lexists(path):
        os.close(keys.open_private(path, "a server's certificate"))
        return path
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        run_aside(lambda: _make_at(path))
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}; set tls_certificate in server.toml") from error
    return path


def _make_at(path: str) -> None:
    try:
        keys.write_private(path, _make())
    except ImportError as error:
        raise ConfigError(
            "a key needs TLS, and TLS a certificate: install the library that makes one (pip install cryptography),"
            " or set tls_certificate in server.toml"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; set tls_certificate in server.toml") from error


def _make() -> bytes:
    """A new private key on P-256 and a certificate for it, both in PEM. Raises ImportError without the library."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rakefarm server")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that is a day off is no reason not to talk: nobody looks at these times.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=LIFE_DAYS))
        .sign(private, hashes.SHA256())
    )
    plain = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return plain + certificate.public_bytes(serialization.Encoding.PEM)
