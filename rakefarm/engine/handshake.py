"""Why no connection to an engine comes to be: gRPC only says that there is none, so TLS is tried once more by hand."""

import socket
import ssl

from rakefarm.engine.access import Access
from rakefarm.engine.address import EngineAddress
from rakefarm.engine.errors import EngineRefuses

_HTTP2_BEGINNING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""A client's preface and an empty frame of settings (RFC 9113, section 3.4), after which a server has to say something.
In TLS 1.3 whoever misses a certificate of the client's says so only then."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")


def examine(address: EngineAddress, access: Access, seconds: float) -> EngineRefuses | None:
    """What is wrong with TLS there, if that is what is wrong. Raises ConfigError for certificates of ours."""
    context = access.tls_context() if address.encrypted else _unverified()
    try:
        with (
            socket.create_connection((address.host, address.port), seconds) as sock,
            context.wrap_socket(sock, server_hostname=address.host) as encrypted,
        ):
            if not address.encrypted:
                return EngineRefuses(f"{address.name} speaks TLS: write grpcs://", "TLS")
            return None if _goes_on(encrypted) else _unwanted(address, access, "it breaks off")
    except ssl.SSLCertVerificationError as error:
        hint = "name the authority that has signed it: tls_authority in [engine]"
        if "ostname" in error.verify_message or "IP address" in error.verify_message:
            hint = "write the name that it is for"
        text = f"{address.name}: its certificate can't be trusted: {error.verify_message.rstrip('.')}; {hint}"
        return EngineRefuses(text, "TLS")
    except ssl.SSLError as error:
        reason = error.reason or ""
        if address.encrypted and reason in _NO_TLS:
            return EngineRefuses(f"{address.name} speaks no TLS: write grpc://", "TLS")
        if address.encrypted and "ALERT" in reason:
            return _unwanted(address, access, reason.lower().replace("_", " "))
        return None
    except OSError:
        return None  # whatever it is, it is not TLS


def _goes_on(encrypted: ssl.SSLSocket) -> bool:
    """Whether it speaks HTTP/2 with us, as every engine does that lets us in. Raises SSLError when it says why not."""
    try:
        encrypted.sendall(_HTTP2_BEGINNING)
        return bool(encrypted.recv(1))
    except TimeoutError:
        return True  # busy, perhaps
    except (ConnectionError, ssl.SSLEOFError):
        return False


def _unverified() -> ssl.SSLContext:
    """To hear whether anybody there speaks TLS, and for nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _unwanted(address: EngineAddress, access: Access, said: str) -> EngineRefuses:
    """By its own word, or by what it does: what it wants is a certificate."""
    if access.certificate:
        hint = f"see whether it knows who has signed {access.certificate}, and whether that is still good"
        return EngineRefuses(f"{address.name} does not take our certificate ({said}); {hint}", "UNAUTHENTICATED")
    hint = "name one: tls_certificate and tls_private_key in [engine]"
    return EngineRefuses(f"{address.name} wants a certificate of ours ({said}); {hint}", "UNAUTHENTICATED")
