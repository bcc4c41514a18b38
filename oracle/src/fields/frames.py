"""Hostile frames: whole ones of every kind that the packet path reads, then cut, flipped and fuzzed.

usage: frames.py SEED COUNT FILE.pcap [tunnels]

With `tunnels`, most packets are carried by VXLAN, Geneve, GRE or IP.
"""

import random
import struct
import sys
import warnings

warnings.filterwarnings("ignore")

from scapy.all import (  # noqa: E402
    AH, ARP, GRE, ICMP, IP, IPv6, SCTP, TCP, UDP, Dot1AD, Dot1Q, Ether, ICMPv6DestUnreach, ICMPv6EchoRequest,
    ICMPv6ND_NS, IPOption, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw,
    fuzz,
)
from scapy.layers.inet6 import PadN  # noqa: E402
from scapy.layers.vxlan import VXLAN  # noqa: E402

PORTS = [22, 53, 80, 443, 500, 4433, 5000, 8080, 33434, 61000]


def port():
    return random.choice(PORTS) if random.random() < 0.7 else random.randrange(65536)


def tags():
    count = random.choice([0, 0, 0, 0, 1, 1, 2, 3, 4])
    layers = [Dot1Q(vlan=random.randrange(4096), prio=random.randrange(8)) for _ in range(count)]
    if count and random.random() < 0.4:
        layers[0] = Dot1AD(vlan=random.randrange(4096))
    return layers


def payload():
    return Raw(bytes(random.randrange(256) for _ in range(random.choice([0, 0, 1, 3, 8, 20, 60]))))


def tcp():
    options = []
    if random.random() < 0.6:
        kinds = [("MSS", 1460), ("SAckOK", b""), ("WScale", 7), ("NOP", None), ("Timestamp", (1, 2)), ("EOL", None)]
        options = random.sample(kinds, random.randrange(len(kinds)))
    return TCP(sport=port(), dport=port(), flags=random.choice(["S", "SA", "A", "PA", "FA", "R", "RA", "", "SF", "FPU",
               random.randrange(512)]), seq=random.randrange(2**32), options=options)


def icmp(**fields):
    # Times of the clock would make every run another one.
    return ICMP(ts_ori=1, ts_rx=2, ts_tx=3, **fields)


def transport(v6):
    roll = random.random()
    if roll < 0.45:
        return tcp()
    if roll < 0.7:
        return UDP(sport=port(), dport=port())
    if roll < 0.75:
        return SCTP(sport=port(), dport=port())
    if v6:
        return random.choice([ICMPv6EchoRequest(id=random.randrange(65536)), ICMPv6DestUnreach() / IPv6() / UDP(),
                              ICMPv6ND_NS(tgt="fe80::1")])
    return icmp(type=random.choice([0, 3, 5, 8, 11, 13, 30]), code=random.randrange(4))


def addresses(v6):
    if v6:
        return {"src": "fd00::%x" % random.randrange(1, 9), "dst": "fd00:1::%x" % random.randrange(1, 9)}
    return {"src": "10.0.0.%d" % random.randrange(1, 9), "dst": "10.1.0.%d" % random.randrange(1, 9)}


def ipv4():
    packet = IP(**addresses(False), id=random.randrange(65536), ttl=random.choice([1, 64, 255]))
    if random.random() < 0.2:
        packet.options = [IPOption(b"\x01" * random.choice([4, 8, 20, 40]))]
    if random.random() < 0.15:
        packet.frag, packet.flags = random.choice([(0, "MF"), (1, "MF"), (185, 0), (8189, 0), (0, "DF")])
    return packet / transport(False) / payload()


def ipv6():
    packet = IPv6(**addresses(True), hlim=random.choice([1, 64, 255]))
    makers = [
        lambda: IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * random.choice([4, 12]))]),
        lambda: IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * random.choice([4, 12]))]),
        lambda: IPv6ExtHdrRouting(addresses=["fd00::9"] * random.randrange(3)),
        lambda: IPv6ExtHdrFragment(id=random.randrange(2**32), offset=random.choice([0, 0, 1, 100]), m=random.randrange(2)),
        lambda: AH(nh=59, spi=7, seq=1, icv=b"\0" * 12, payloadlen=4),
    ]
    upper = transport(True)
    for _ in range(random.choice([0, 0, 0, 1, 1, 2, 3, 9])):
        packet = packet / random.choice(makers)()
    if isinstance(packet.lastlayer(), AH):
        packet.lastlayer().nh = {TCP: 6, UDP: 17, SCTP: 132}.get(type(upper), 58)
    return packet / upper / payload()


def other():
    return random.choice([
        lambda: ARP(),
        lambda: Raw(bytes(random.randrange(256) for _ in range(random.randrange(1, 60)))),
    ])()


def fuzzed():
    layer = random.choice([
        lambda: fuzz(IP(**addresses(False))) / transport(False),
        lambda: IP(**addresses(False)) / fuzz(TCP()),
        lambda: IP(**addresses(False)) / fuzz(UDP()),
        lambda: IP(**addresses(False)) / fuzz(icmp()),
        lambda: fuzz(IPv6(**addresses(True))) / transport(True),
        lambda: IPv6(**addresses(True)) / fuzz(TCP()),
        lambda: IPv6(**addresses(True)) / fuzz(UDP()),
        lambda: IPv6(**addresses(True)) / fuzz(IPv6ExtHdrFragment()) / transport(True),
        lambda: IPv6(**addresses(True)) / fuzz(IPv6ExtHdrRouting()) / transport(True),
    ])()
    return layer / payload()


def ethernet(inner):
    """An inner frame, and the EtherType by which a tunnel names it."""
    layer = Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04")
    for tag in tags() if random.random() < 0.3 else []:
        layer = layer / tag
    return layer / inner, 0x6558


def carried(inner):
    """A packet in a tunnel."""
    v6 = random.random() < 0.3
    outer = IPv6(**addresses(True)) if v6 else IP(**addresses(False), id=random.randrange(65536))
    if random.random() < 0.05 and not v6:
        outer.flags = "MF"
    kind = IPv6 if isinstance(inner, IPv6) else IP
    named = (inner, 0x86DD if kind is IPv6 else 0x0800)
    roll = random.random()
    if roll < 0.3:
        flags = 0x08 if random.random() < 0.9 else random.randrange(256)
        return outer / UDP(sport=port(), dport=4789) / VXLAN(flags=flags, vni=random.randrange(2**24)) / ethernet(inner)[0]
    if roll < 0.55:
        payload, proto = ethernet(inner) if random.random() < 0.5 else named
        words = random.choice([0, 0, 1, 3])
        options = b"\x01\x02\x80" + bytes([words - 1]) + bytes(4 * (words - 1)) if words else b""
        head = struct.pack("!BBHI", words, random.choice([0, 0x40, 0x80]), proto, random.randrange(2**24) << 8)
        return outer / UDP(sport=port(), dport=6081) / Raw(head + options + bytes(payload))
    if roll < 0.8:
        payload, proto = ethernet(inner) if random.random() < 0.4 else named
        bits = {name: random.randrange(2) for name in ["chksum_present", "key_present", "seqnum_present"]}
        return outer / GRE(proto=proto, **bits) / payload
    return outer / inner


def frame(tunnels=False):
    roll = random.random()
    inner = ipv4() if roll < 0.4 else ipv6() if roll < 0.72 else fuzzed() if roll < 0.96 else other()
    if tunnels and isinstance(inner, (IP, IPv6)) and random.random() < 0.9:
        try:
            inner = carried(inner)
        except Exception:
            return frame(tunnels)
    packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for tag in tags() if not tunnels or random.random() < 0.3 else []:
        packet = packet / tag
    try:
        data = bytearray(bytes(packet / inner))
    except Exception:  # scapy cannot build everything that it fuzzes
        return frame(tunnels)
    mutation = random.random()
    if mutation < 0.15:
        del data[random.randrange(14, len(data) + 1):]
    elif mutation < 0.35:
        for _ in range(random.choice([1, 1, 2, 5])):
            at = random.randrange(12, min(len(data), 140 if tunnels else 90))
            data[at] ^= 1 << random.randrange(8)
    elif mutation < 0.4:
        data += bytes(random.randrange(1, 20))
    return bytes(data)


def main():
    seed, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    tunnels = sys.argv[4:] == ["tunnels"]
    random.seed(seed)
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for n in range(count):
            data = frame(tunnels)
            file.write(struct.pack("<IIII", 1_700_000_000 + n, 0, len(data), len(data)))
            file.write(data)


main()
