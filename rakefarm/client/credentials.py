"""What this client can prove, and what it asks of a server before it sends anything."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from rakefarm.config import ClientSettings
from rakefarm.hosts import Host

if TYPE_CHECKING:
    import ssl

    from rakefarm.security.keys import Key


class Credentials(Struct, frozen=True):
    """With a `context` every connection but to a Unix socket speaks TLS; with a `key` its server must prove to hold the
    same one; without either nothing leaves this machine, unless `insecure`."""

    key: "Key | None" = None
    context: "ssl.SSLContext | None" = None
    insecure: bool = False


def load_credentials(settings: ClientSettings, hosts: Iterable[Host], environ: Mapping[str, str]) -> Credentials:
    """Read the key file and the certificates, if any of the hosts needs them. Raises ConfigError."""
    if all(host.way == "unix" or host.is_local for host in hosts):
        return Credentials()
    from rakefarm.security import keys

    path = keys.find_path(settings.key_file, environ)
    key = keys.choose(keys.read_keys(path), settings.key_name, path) if path else None
    if key is None and not settings.tls_authority:
        return Credentials(insecure=settings.insecure)
    from rakefarm.security.tls import client_context

    context = client_context(settings.tls_certificate, settings.tls_private_key, settings.tls_authority)
    return Credentials(key, context, settings.insecure)
