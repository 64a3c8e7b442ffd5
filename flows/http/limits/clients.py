"""Which addresses count as one client."""

from ipaddress import IPv6Address, ip_address, ip_network


def client_of(host: str) -> str:
    """The client that an address belongs to: the IPv4 address, or the /64 network of IPv6.

    Internet providers give each customer at least a /64, so a limit for one IPv6 address is easy to
    evade.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address.packed, 64), strict=False))
