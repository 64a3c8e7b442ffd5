"""Whom to count as one client."""

from ipaddress import IPv6Address, ip_address, ip_network


def client_of(host: str) -> str:
    """The IPv4 address; of IPv6 the /64, for that is the least that a provider gives to one."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address.packed, 64), strict=False))
