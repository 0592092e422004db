"""Which IP addresses belong to the public internet. Standard library only.

The tables are IANA's registries of special-purpose addresses (iana-ipv4-special-registry, RFC 6890, and
iana-ipv6-special-registry), and those of multicast and reserved space. They are kept here because Python's own
(`ipaddress.ip_address(...).is_global`) differ from version to version, and count blocks as public that no server has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

NOT_PUBLIC_IPV4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # carrier-grade NAT
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local; clouds keep their metadata here
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocol assignments, also 192.0.0.8 (dummy), 192.0.0.9 and 192.0.0.10 (anycast)
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",  # 6to4 relays, deprecated
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
)
PUBLIC_IPV6 = "2000::/3"  # all that is assigned as global unicast
NOT_PUBLIC_IPV6 = (  # within that
    "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID, AMT, AS112 and others
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4; judged by the IPv4 address that it carries
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
)
NAT64 = "64:ff9b::/96"  # carries an IPv4 address in its last 32 bits


def refuse_private_addresses(address: str) -> None:
    """A `FetchPolicy.check_address` for servers: only addresses of the public internet pass.

    Refuses loopback, private, link-local, carrier-grade, documentation, protocol, reserved and multicast ranges, also
    where an IPv6 address carries an IPv4 one (mapped, 6to4, NAT64).

    Raises: ValueError naming the address.
    """
    import ipaddress

    ip = ipaddress.ip_address(address.partition("%")[0])  # a zone such as %eth0 is not part of the number
    if not _is_public(ip):
        raise ValueError(f"{address} is not an address of the public internet; only those are allowed here")


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    import ipaddress

    not_public_4, public_6, not_public_6, nat64 = _tables()
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or ip.sixtofour
        if ip in nat64:
            carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if carried is None:
            return ip in public_6 and not any(ip in network for network in not_public_6)
        ip = carried
    return not any(ip in network for network in not_public_4)


@lru_cache(maxsize=1)
def _tables() -> tuple[list[IPv4Network], IPv6Network, list[IPv6Network], IPv6Network]:
    from ipaddress import IPv4Network, IPv6Network

    not_public_4 = [IPv4Network(network) for network in NOT_PUBLIC_IPV4]
    not_public_6 = [IPv6Network(network) for network in NOT_PUBLIC_IPV6]
    return not_public_4, IPv6Network(PUBLIC_IPV6), not_public_6, IPv6Network(NAT64)
