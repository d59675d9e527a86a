# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Peers whose outer address or UDP port changes, as a NAT's mapping does: who is believed, what the
agent is told, and that SAs follow it while traffic flows."""

import time

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP
from scapy.packet import Raw

from esp import UDP_ESP, Sa
from testbed import PATIENCE
from topologies import Bench, probe

MOVED, PORT = "203.0.113.99", 61000  # a neighbour of the gateway, too
MOVED6 = "2001:db8:f::77"
PORTS = ("source_port", "destination_port")


@pytest.fixture
def control(bench):
    connection = bench.gateway.connect()
    connection.call("events.subscribe", events=["sa.peer_moved"])
    yield connection
    connection.close()


def elsewhere(packet, source=None, port=None):
    """The same ESP packet as if it came from another place."""
    moved = packet.copy()
    moved.src = source or packet.src
    if port is not None:
        moved[UDP].sport = port
    for layer in (IP, UDP):
        if layer in moved:
            del moved[layer].chksum
    return moved.__class__(bytes(moved))


def arrive(bench, sa, source=None, port=None, tunnel="tunnel01"):
    """A packet of the SA from this place is accepted; returns it."""
    sent = probe(Bench.BEHIND[tunnel], Bench.HOST)
    packet = elsewhere(sa.encrypt(sent), source, port)
    bench.send_outside(packet)
    bench.arrives_inside(sent)
    return packet


def no_event(bench, control):
    """What was received so far has told nothing: the control thread has looked many times."""
    end = time.monotonic() + 0.05 * PATIENCE
    while time.monotonic() < end:
        control.call("hello", protocol=1)
    assert control.events == []


def update(bench, direction, sa, **changes):
    bench.gateway.call("sa.update", direction=direction, spi=sa.spi, **changes)


@pytest.mark.parametrize("source, port", [(MOVED, None), (None, PORT), (MOVED, PORT)])
def test_the_agent_is_told_and_follows(bench, control, source, port):
    into, out = bench.sa_in(nat_t=True), bench.sa_out(nat_t=True)
    arrive(bench, into)
    no_event(bench, control)
    arrive(bench, into, source, port)
    event = control.event("sa.peer_moved")
    new_source, new_port = source or into.source, port or UDP_ESP
    listed = bench.gateway.call("sa.show", direction="in", spi=into.spi)["sa"]
    assert event == {
        "event": "sa.peer_moved", "id": listed["id"], "tunnel": "tunnel01", "direction": "in",
        "spi": f"0x{into.spi:08x}", "source": into.source, "destination": into.destination,
        "udp_source_port": UDP_ESP, "new_source": new_source, "new_udp_source_port": new_port}
    # The gateway goes on sending to the old place until it is told.
    outer = bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    assert (outer.dst, outer[UDP].dport) == (out.destination, UDP_ESP)
    update(bench, "in", into, source=new_source,
           udp_encapsulation={"source_port": new_port, "destination_port": UDP_ESP})
    update(bench, "out", out, new_destination=new_source,
           udp_encapsulation={"source_port": UDP_ESP, "destination_port": new_port})
    bench.send_inside(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    outer = bench.outside.receive(
        lambda frame: IP(frame[14:]) if frame[12:14] == b"\x08\x00" else None)
    assert (outer.dst, outer[UDP].dport) == (new_source, new_port)
    arrive(bench, into, source, port)
    time.sleep(1.0)  # the limit of one a second would hide it
    arrive(bench, into, source, port)
    no_event(bench, control)


def test_ipv6(bench, control):
    into = bench.sa_in("tunnel06", nat_t=True)
    arrive(bench, into, tunnel="tunnel06")
    no_event(bench, control)
    arrive(bench, into, MOVED6, PORT, tunnel="tunnel06")
    event = control.event("sa.peer_moved")
    assert (event["new_source"], event["new_udp_source_port"]) == (MOVED6, PORT)
    assert (event["source"], event["udp_source_port"]) == (into.source, UDP_ESP)
    update(bench, "in", into, source=MOVED6,
           udp_encapsulation={"source_port": PORT, "destination_port": UDP_ESP})
    time.sleep(1.0)
    arrive(bench, into, MOVED6, PORT, tunnel="tunnel06")
    no_event(bench, control)
    arrive(bench, into, MOVED6, PORT + 1, tunnel="tunnel06")
    assert control.event("sa.peer_moved")["new_udp_source_port"] == PORT + 1


def test_nat_appears_on_an_sa_without_udp(bench, control):
    into = bench.sa_in()
    arrive(bench, into)
    arrive(bench, into, MOVED)  # plain ESP tells nothing
    no_event(bench, control)
    into.nat_t = True
    arrive(bench, into, port=PORT)
    event = control.event("sa.peer_moved")
    assert event["udp_source_port"] is None
    assert (event["new_source"], event["new_udp_source_port"]) == (into.source, PORT)


def test_replay_from_elsewhere(bench, control):
    into = bench.sa_in(nat_t=True)
    packets = [arrive(bench, into) for _ in range(3)]
    with bench.gateway.dropping(replay=3):
        bench.send_outside(*(elsewhere(packet, MOVED, PORT) for packet in packets))
    no_event(bench, control)


def test_replay_from_elsewhere_without_replay_protection(bench, control):
    into = bench.sa_in(nat_t=True, add={"replay_window": 0})
    sent = probe(Bench.BEHIND["tunnel01"], Bench.HOST)
    packet = into.encrypt(sent)
    bench.send_outside(packet)
    bench.arrives_inside(sent)
    bench.send_outside(elsewhere(packet, MOVED, PORT))  # passes, as such an SA wants it
    bench.arrives_inside(sent)
    no_event(bench, control)


def test_forged_packet_from_elsewhere(bench, control):
    into = bench.sa_in(nat_t=True)
    arrive(bench, into)
    forged = bytearray(bytes(elsewhere(into.encrypt(
        probe(Bench.BEHIND["tunnel01"], Bench.HOST)), MOVED, PORT)))
    forged[-1] ^= 1
    with bench.gateway.dropping(icv=1):
        bench.send_outside(Raw(bytes(forged)))
    no_event(bench, control)


def test_late_packet_from_the_old_place(bench, control):
    into = bench.sa_in(nat_t=True)
    late_probe = probe(Bench.BEHIND["tunnel01"], Bench.HOST)
    late = into.encrypt(late_probe)
    arrive(bench, into, MOVED, PORT)
    control.event("sa.peer_moved")
    update(bench, "in", into, source=MOVED,
           udp_encapsulation={"source_port": PORT, "destination_port": UDP_ESP})
    time.sleep(1.0)
    bench.send_outside(late)
    bench.arrives_inside(late_probe)
    no_event(bench, control)
    arrive(bench, into)  # a new one from there is believed
    assert control.event("sa.peer_moved")["new_source"] == into.source


def test_once_a_second(bench, control):
    into = bench.sa_in(nat_t=True)
    other = bench.sa_in("tunnel02", nat_t=True)
    began = time.monotonic()
    while time.monotonic() - began < 2.5:
        for port in (PORT, PORT + 1):
            arrive(bench, into, MOVED, port)
    arrive(bench, other, MOVED, PORT, tunnel="tunnel02")  # not held up by the first
    told = [control.event("sa.peer_moved")["tunnel"]]
    while told[-1] != "tunnel02":
        told.append(control.event("sa.peer_moved")["tunnel"])
    assert 2 <= told.count("tunnel01") <= time.monotonic() - began + 1, told


def test_event_of_a_deleted_sa_is_dropped(bench, control):
    into = bench.sa_in(nat_t=True)
    arrive(bench, into)
    bench.gateway.call("sa.delete", direction="in", spi=into.spi)
    with bench.gateway.dropping(unknown_spi=1):
        bench.send_outside(elsewhere(into.encrypt(
            probe(Bench.BEHIND["tunnel01"], Bench.HOST)), MOVED, PORT))
    no_event(bench, control)


def test_peer_behind_nat_from_the_start(bench, control):
    """The addresses of an SA are the agent's business: the far end may be anywhere."""
    out, into = Sa(Bench.WAN, MOVED, nat_t=True), Sa(MOVED, Bench.WAN, nat_t=True)
    for sa, direction, ports in ((out, "out", (UDP_ESP, PORT)), (into, "in", (PORT, UDP_ESP))):
        bench.gateway.call("sa.add", tunnel="tunnel01", direction=direction, **{
            **sa.parameters(), "udp_encapsulation": dict(zip(PORTS, ports))})
    sent = probe(Bench.HOST, Bench.BEHIND["tunnel01"])
    bench.send_inside(sent)
    outer = bench.outside.receive(
        lambda frame: IP(frame[14:]) if frame[12:14] == b"\x08\x00" else None)
    assert (outer.dst, outer[UDP].dport) == (MOVED, PORT)
    outer[UDP].dport = UDP_ESP  # what scapy takes for ESP
    assert bytes(out.decrypt(IP(bytes(outer)))[UDP]) == bytes(sent[UDP])
    arrive(bench, into, MOVED, PORT)
    no_event(bench, control)
    assert bench.gateway.tunnel("tunnel01")["state"] == "up"


def test_updates_lose_nothing_under_traffic(bench):
    """NAT appears, moves and disappears again and again while packets go both ways."""
    into, out = bench.sa_in(), bench.sa_out()
    places = [(out.destination, None), (out.destination, PORT), (MOVED, PORT), (MOVED, None)]
    before, rounds, each = bench.gateway.drops(), 40, 5
    for number in range(rounds):
        address, port = places[number % len(places)]
        bench.send_inside(*(probe(Bench.HOST, Bench.BEHIND["tunnel01"]) for _ in range(each)))
        udp = port and {"source_port": UDP_ESP, "destination_port": port}
        update(bench, "out", out, new_destination=address, udp_encapsulation=udp)
        into.nat_t = port is not None
        sent = [probe(Bench.BEHIND["tunnel01"], Bench.HOST) for _ in range(each)]
        bench.send_outside(*(elsewhere(into.encrypt(one), address, port) for one in sent))
        udp = port and {"source_port": port, "destination_port": UDP_ESP}
        update(bench, "in", into, source=address, udp_encapsulation=udp)

    def sequence(frame):
        if frame[12:14] != b"\x08\x00":
            return None
        packet = IP(frame[14:])
        assert packet.dst in (out.destination, MOVED)
        # scapy knows ESP in UDP by port 4500 only.
        return ESP(bytes(packet[UDP].payload)).seq if UDP in packet else packet[ESP].seq
    sequences = bench.outside.collect(sequence, 5, count=rounds * each)
    assert sorted(sequences) == list(range(1, rounds * each + 1))
    got = bench.inside.collect(lambda frame: frame[12:14] == b"\x08\x00", 5,
                               count=rounds * each)
    assert len(got) == rounds * each
    assert bench.gateway.drops() == before
