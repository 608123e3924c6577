"""Which addresses are this machine's alone. Whatever else reaches further counts as the network."""

from ipaddress import IPv4Address, IPv6Address, ip_address


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to `address`, which is a number, not a name.

    "", 0.0.0.0 and :: are every address, and ::ffff:127.0.0.1 is one that the network can be made to route, so all of
    them count as the network.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return parsed == IPv6Address("::1") if isinstance(parsed, IPv6Address) else parsed.is_loopback


def is_loopback_name(host: str) -> bool:
    """The same of what may be the name that every machine has for itself (RFC 6761, 6.3)."""
    return host.lower() == "localhost" or is_loopback(host)


def group_of(address: str) -> str:
    """What one party is likely to have: an IPv4 address, or a network of 64 bits of IPv6 (RFC 4291, 2.5.4)."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
