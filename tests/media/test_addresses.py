"""The table of special addresses, entry by entry, and against Python's."""

import ipaddress
import random

import pytest

from mlx_smolvlm.media.addresses import NOT_PUBLIC_IPV4, NOT_PUBLIC_IPV6, refuse_private_addresses


def is_public(address: object) -> bool:
    try:
        refuse_private_addresses(str(address))
    except ValueError as error:
        assert str(address) in str(error)
        return False
    return True


@pytest.mark.parametrize("network", [*NOT_PUBLIC_IPV4, *(n for n in NOT_PUBLIC_IPV6 if n != "2002::/16")])
def test_a_block_is_refused_to_its_edges_and_no_further(network: str) -> None:
    block = ipaddress.ip_network(network)
    assert not is_public(block[0]) and not is_public(block[-1])
    for neighbour in (int(block[0]) - 1, int(block[-1]) + 1):
        if not 0 <= neighbour < 2**block.max_prefixlen:
            continue
        address = type(block[0])(neighbour)
        others = [ipaddress.ip_network(other) for other in (*NOT_PUBLIC_IPV4, *NOT_PUBLIC_IPV6)]
        assert is_public(address) != any(address in other for other in others if other.version == block.version)


@pytest.mark.parametrize(
    "address",
    ["192.0.0.8", "192.0.0.9", "192.88.99.1", "3fff::1", "3fff:fff::1", "2001::1", "2001:2::1", "2001:20::1",
     "2001:1::1", "5f00::1", "4000::1", "fec0::1", "100::1", "::ffff:192.88.99.1", "2002:c058:6301::1",
     "64:ff9b::c000:8", "64:ff9b:1::808:808", "::ffff:0:8.8.8.8", "::8.8.8.8", "2620:4f:8000::1"],
)  # fmt: skip
def test_what_once_passed_for_public_does_not(address: str) -> None:
    assert not is_public(address)


def test_nothing_passes_that_python_calls_private() -> None:
    """Python may know fewer special blocks, never more."""
    choices = random.Random(15)
    ipv4 = [ipaddress.IPv4Address(choices.getrandbits(32)) for _ in range(3000)]
    ipv6 = [ipaddress.IPv6Address(choices.getrandbits(128)) for _ in range(1000)]
    ipv6 += [ipaddress.IPv6Address(0x2 << 124 | choices.getrandbits(124)) for _ in range(1000)]
    edges = [ipaddress.ip_network(network)[at] for network in (*NOT_PUBLIC_IPV4, *NOT_PUBLIC_IPV6) for at in (0, -1)]
    passed = [address for address in [*ipv4, *ipv6, *edges] if is_public(address)]
    assert len(passed) > 2000
    assert [address for address in passed if not address.is_global or address.is_multicast or address.is_reserved] == []
