# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Routes of the agent, of the kernel, and the way to the tunnels' ends."""

import socket

from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP

import esp
from testbed import wait_until
from topologies import Bench, probe


def espctl(bench, *words):
    return bench.gateway.espctl(*words)


def test_routes_added_and_deleted_by_espctl(bench):
    one, two = bench.sa_out("tunnel01"), bench.sa_out("tunnel02")
    there = "10.77.1.1"

    def goes_by():
        return bench.esp_of(probe(Bench.HOST, there))[ESP].spi
    with bench.gateway.dropping(no_route=1):
        bench.send_inside(probe(Bench.HOST, there))
    espctl(bench, "route", "add", "10.77.0.0/16", "--tunnel", "tunnel01")
    assert goes_by() == one.spi
    espctl(bench, "route", "add", "10.77.0.0/16", "--tunnel", "tunnel02", "--priority", "50")
    assert goes_by() == two.spi  # the lowest priority
    espctl(bench, "route", "add", "10.77.1.0/24", "--tunnel", "tunnel01", "--priority", "900")
    assert goes_by() == one.spi  # the longest prefix comes first
    espctl(bench, "route", "delete", "10.77.1.0/24", "--tunnel", "tunnel01")
    espctl(bench, "route", "delete", "10.77.0.0/16", "--tunnel", "tunnel02")
    assert goes_by() == one.spi
    espctl(bench, "route", "delete", "10.77.0.0/16", "--tunnel", "tunnel01")
    with bench.gateway.dropping(no_route=1):
        bench.send_inside(probe(Bench.HOST, there))
    refused = bench.gateway.espctl("route", "delete", "10.77.0.0/16", "--tunnel", "tunnel01",
                                   check=False)
    assert refused.returncode == 1 and refused.stderr


def test_default_routes_into_a_tunnel(bench):
    """0.0.0.0/0 and ::/0, although the far end is reached by the same table."""
    sa = bench.sa_out("tunnel01")
    for prefix, there, here in (("0.0.0.0/0", "8.8.8.8", Bench.HOST),
                                ("::/0", "2001:4860::8888", Bench.HOST6)):
        bench.gateway.call("route.add", prefix=prefix, tunnel="tunnel01")
        sent = probe(here, there)
        assert bytes(sa.decrypt(bench.esp_of(sent))[UDP]) == bytes(sent[UDP])
        bench.gateway.call("route.delete", prefix=prefix, tunnel="tunnel01")
        with bench.gateway.dropping(no_route=1):
            bench.send_inside(probe(here, there))


def test_kernel_routes_are_mirrored(bench):
    """A routing daemon's route over a tunnel, and one to a router inside."""
    sa = bench.sa_out("tunnel02")
    namespace = bench.gateway.namespace
    namespace.ip("route", "add", "10.78.0.0/16", "dev", "tunnel02", "proto", "bgp")
    wait_until(lambda: bench.gateway.routes(prefix="10.78.0.0/16", tunnel="tunnel02",
                                            origin="kernel"), "the route is mirrored")
    assert bench.esp_of(probe(Bench.HOST, "10.78.0.1"))[ESP].spi == sa.spi
    namespace.ip("route", "delete", "10.78.0.0/16", "dev", "tunnel02")
    wait_until(lambda: not bench.gateway.routes(prefix="10.78.0.0/16"), "the route is gone")
    into = bench.sa_in()
    namespace.ip("route", "add", "10.79.0.0/16", "via", Bench.HOST, "dev", "lan")
    wait_until(lambda: bench.gateway.routes(prefix="10.79.0.0/16", port="lan",
                                            next_hop=Bench.HOST), "the route is mirrored")
    sent = probe(Bench.BEHIND["tunnel01"], "10.79.0.1")
    bench.send_outside(into.encrypt(sent))
    bench.arrives_inside(sent)
    namespace.ip("route", "delete", "10.79.0.0/16")


def test_own_routes_are_in_the_kernel_and_not_mirrored_back(bench):
    shown = bench.gateway.namespace.ip("route", "show", "192.168.192.0/26")
    assert "dev tunnel01" in shown and "proto 229" in shown
    assert {route["origin"] for route in bench.gateway.routes(prefix="192.168.192.0/26")} \
        == {"config"}


def test_far_end_behind_the_kernels_gateway_of_last_resort(network):
    """The default route is the kernel's, on the outside TAP; its neighbour is asked for."""
    bench = Bench(network)
    bench.FAR = {"tunnel01": "198.51.100.1"}
    config = bench.config()
    config["routes"] = [route for route in config["routes"]
                        if route.get("tunnel") == "tunnel01"]
    config["neighbours"] = [neighbour for neighbour in config["neighbours"]
                            if neighbour["port"] == "lan"]
    bench.gateway.config.update(config)
    outside = bench.outside.namespace
    outside.ip("link", "set", "eth0", "arp", "on")
    outside.ip("address", "add", "203.0.113.254/24", "dev", "eth0")
    bench.start()
    sa = bench.sa_out()
    with bench.gateway.dropping(no_path=1):
        bench.send_inside(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    gateway = bench.gateway.namespace
    gateway.ip("route", "add", "default", "via", "203.0.113.254", "dev", "wan", "metric", "500")
    wait_until(lambda: bench.gateway.routes(prefix="0.0.0.0/0", next_hop="203.0.113.254",
                                            origin="kernel"), "the route is mirrored")

    def arrives():
        sent = probe(Bench.HOST, Bench.BEHIND["tunnel01"])
        bench.send_inside(sent)
        return bench.outside.collect(esp.is_esp, 0.2, count=1)
    outer, = wait_until(arrives, "ESP leaves by the router")
    assert outer.dst == "198.51.100.1" and sa.decrypt(outer).dst == Bench.BEHIND["tunnel01"]
    # Everything into the tunnel now; the tunnel's own way stays as it was.
    bench.gateway.call("route.add", prefix="0.0.0.0/0", tunnel="tunnel01", priority=10)
    sent = probe(Bench.HOST, "8.8.8.8")
    assert sa.decrypt(bench.esp_of(sent)).dst == "8.8.8.8"
    gateway.ip("route", "delete", "default", "via", "203.0.113.254", "dev", "wan",
               "metric", "500")
    wait_until(lambda: not bench.gateway.routes(prefix="0.0.0.0/0", origin="kernel"),
               "the route is gone")
    wait_until(lambda: bench.send_inside(probe(Bench.HOST, "8.8.8.8"))
               or bench.gateway.drops().get("no_path", 0) > 1, "there is no path any more")


def test_everything_into_a_tunnel_but_its_own_far_end(network):
    """0.0.0.0/0 by a tunnel from the file, with a way to its far end by a static port route."""
    bench = Bench(network)
    bench.FAR = {"tunnel01": "198.51.100.1"}
    config = bench.config()
    config["neighbours"] = [neighbour for neighbour in config["neighbours"]
                            if neighbour["address"] != "198.51.100.1"]
    config["routes"] = [
        {"prefix": "0.0.0.0/0", "tunnel": "tunnel01"},
        {"prefix": "198.51.100.1/32", "port": "wan", "next_hop": "203.0.113.99"},
    ]
    bench.gateway.config.update(config)
    bench.start()
    sa = bench.sa_out()
    sent = probe(Bench.HOST, "8.8.8.8")
    outer = bench.esp_of(sent)
    assert outer.dst == "198.51.100.1" and bytes(sa.decrypt(outer)[UDP]) == bytes(sent[UDP])
    # The host: IKE to the far end in clear, anything else not.
    gateway = bench.gateway.namespace
    gateway.ip("neigh", "replace", "203.0.113.99", "lladdr", bench.outside.mac, "dev", "wan")
    gateway.ip("route", "replace", "198.51.100.1", "via", "203.0.113.99", "dev", "wan")
    gateway.ip("route", "replace", "9.9.9.9", "via", "203.0.113.99", "dev", "wan")
    with gateway.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bench.outside.flush()
    sender.sendto(b"ike", ("198.51.100.1", 500))
    ike = bench.outside.receive(lambda data: esp.is_ip(data), what="IKE of the host")
    assert isinstance(ike, IP) and ike[UDP].dport == 500
    sender.close()


def test_neighbours_inside_are_asked_for_and_kept(pair):
    """The first packet to an unknown neighbour triggers its resolution; then a host route leads."""
    pair.site_b.ip("address", "add", "192.168.192.20/26", "dev", "eth0")
    pair.site_a.wait_for("192.168.192.20")
    assert pair.b.routes(prefix="192.168.192.20/32", origin="neighbour")
    shown = pair.b.namespace.ip("neigh", "show", "192.168.192.20", "dev", "lan")
    assert "managed" in shown
    with pair.b.dropping():
        pair.site_a.ping("192.168.192.20", count=20)


def test_a_tunnel_route_takes_over_from_a_neighbour(bench):
    """The neighbour was there first, on the port's own network; its address is the tunnel's now."""
    sa = bench.sa_out("tunnel01")
    sent = probe(Bench.BEHIND["tunnel01"], Bench.HOST)
    into = bench.sa_in()
    bench.send_outside(into.encrypt(sent))
    bench.arrives_inside(sent)
    gateway = bench.gateway
    gateway.call("route.add", prefix="203.0.113.64/26", tunnel="tunnel01")
    namespace = gateway.namespace
    namespace.ip("neigh", "replace", "203.0.113.77", "lladdr", bench.outside.mac, "dev", "wan")
    gateway.call("route.delete", prefix="203.0.113.64/26", tunnel="tunnel01")
    namespace.ip("neigh", "replace", "203.0.113.78", "lladdr", bench.outside.mac, "dev", "wan")
    wait_until(lambda: gateway.routes(prefix="203.0.113.78/32", origin="neighbour"),
               "the neighbour has a host route")
    gateway.call("route.add", prefix="203.0.113.64/26", tunnel="tunnel01")
    assert not gateway.routes(prefix="203.0.113.78/32", origin="neighbour")
    for address in ("203.0.113.77", "203.0.113.78"):
        assert bench.esp_of(probe(Bench.HOST, address))[ESP].spi == sa.spi
    gateway.call("route.delete", prefix="203.0.113.64/26", tunnel="tunnel01")
    for address in ("203.0.113.77", "203.0.113.78"):
        namespace.ip("neigh", "delete", address, "dev", "wan")


def test_everything_into_a_tunnel_beside_the_kernels_default_route(bench):
    """The kernel's default route out of wan is the better one by its metric, but is no tunnel."""
    sa = bench.sa_out("tunnel01")
    gateway = bench.gateway
    gateway.call("route.add", prefix="0.0.0.0/0", tunnel="tunnel01")
    namespace = gateway.namespace
    namespace.ip("route", "add", "default", "via", "203.0.113.99", "dev", "wan")
    namespace.ip("route", "add", "9.9.9.0/24", "via", "203.0.113.99", "dev", "wan")
    for _ in range(20):
        assert bench.esp_of(probe(Bench.HOST, "8.8.8.8"))[ESP].spi == sa.spi
    bench.outside.flush()
    before = gateway.drops().get("host_cleartext", 0)
    namespace.ping("9.9.9.9", 1, 0.2, 56, False)
    wait_until(lambda: gateway.drops().get("host_cleartext", 0) > before, "cleartext is stopped")
    bench.outside.nothing(lambda data: esp.is_ip(data) and esp.is_ip(data).dst == "9.9.9.9")
    namespace.ip("route", "delete", "9.9.9.0/24")
    namespace.ip("route", "delete", "default", "via", "203.0.113.99")
    gateway.call("route.delete", prefix="0.0.0.0/0", tunnel="tunnel01")


def test_one_next_hop_under_two_metrics(bench):
    """Taking one of them away leaves the other."""
    gateway, namespace = bench.gateway, bench.gateway.namespace
    for metric in ("100", "200"):
        namespace.ip("route", "add", "10.80.0.0/16", "via", Bench.HOST, "dev", "lan", "metric", metric)
    wait_until(lambda: gateway.routes(prefix="10.80.0.0/16", priority=100), "the better metric counts")
    namespace.ip("route", "delete", "10.80.0.0/16", "metric", "100")
    wait_until(lambda: gateway.routes(prefix="10.80.0.0/16", priority=200), "the other is left")
    namespace.ip("route", "delete", "10.80.0.0/16", "metric", "200")
    wait_until(lambda: not gateway.routes(prefix="10.80.0.0/16"), "both are gone")


def test_kernel_keeps_what_another_origin_still_has(bench):
    gateway, prefix = bench.gateway, "192.168.192.0/26"

    def shown():
        return gateway.namespace.ip("route", "show", prefix, "proto", "229")
    before = shown()
    gateway.call("route.add", prefix=prefix, tunnel="tunnel01", priority=100)
    gateway.call("route.delete", prefix=prefix, tunnel="tunnel01")
    assert shown() == before  # the configuration's own
    gateway.call("route.add", prefix="10.81.0.0/16", tunnel="tunnel01", priority=100)
    gateway.call("route.add", prefix="10.81.0.0/16", tunnel="tunnel01", priority=200)
    kernel = gateway.namespace.ip("route", "show", "10.81.0.0/16")
    assert "metric 200" in kernel and "metric 100" not in kernel
    gateway.call("route.delete", prefix="10.81.0.0/16", tunnel="tunnel01")
    assert not gateway.namespace.ip("route", "show", "10.81.0.0/16")


def test_routes_come_back_with_their_interface(bench):
    """The kernel forgets the routes of an interface that goes down."""
    namespace = bench.gateway.namespace
    bench.gateway.call("route.add", prefix="10.82.0.0/16", tunnel="tunnel01")
    namespace.ip("link", "set", "tunnel01", "down")
    assert not namespace.ip("route", "show", "192.168.192.0/26")
    namespace.ip("link", "set", "tunnel01", "up")
    for prefix in ("192.168.192.0/26", "10.82.0.0/16"):
        wait_until(lambda prefix=prefix: "dev tunnel01" in namespace.ip("route", "show", prefix),
                   f"{prefix} is back")
    bench.gateway.call("route.delete", prefix="10.82.0.0/16", tunnel="tunnel01")


def test_deleting_what_is_not_there_takes_no_room(network):
    bench = Bench(network)
    bench.gateway.config["gateway"] = {**bench.gateway.config.get("gateway", {}),
                                       "max_neighbours": 64}
    bench.start()
    for i in range(80):
        refused = bench.gateway.espctl("route", "delete", "10.83.0.0/16", "--port", "wan",
                                       "--next-hop", f"203.0.113.{100 + i}", check=False)
        assert refused.returncode == 1 and "no such route" in refused.stderr
    bench.gateway.call("route.add", prefix="10.83.0.0/16", port="wan", next_hop="203.0.113.250")


def flows(destination, count=80, source=Bench.HOST, **header):
    return [IP(bytes(IP(src=source, dst=destination, **header) / UDP(sport=20000 + i, dport=7000)))
            for i in range(count)]


def spis_of(bench, packets):
    """By which SA each packet leaves, sent from inside."""
    bench.outside.flush()
    bench.send_inside(*packets)
    outer = bench.outside.collect(esp.is_esp, 2, count=len(packets))
    assert len(outer) == len(packets)
    return outer


def test_routes_of_equal_priority_share_flows_by_weight(bench):
    """And one that goes takes no other's flows along; configured and mirrored ones alike."""
    sas = {name: bench.sa_out(name) for name in ("tunnel01", "tunnel02", "tunnel03")}
    gateway, prefix = bench.gateway, "10.84.0.0/16"

    def ways():
        """Flow (its port) to tunnel."""
        found = {}
        for packet in spis_of(bench, flows("10.84.0.1")):
            name = next(name for name, sa in sas.items() if sa.spi == packet[ESP].spi)
            found[sas[name].decrypt(packet)[UDP].sport] = name
        assert len(found) == 80  # each flow once
        return found

    def counts():
        found = list(ways().values())
        return [found.count(name) for name in sas]
    for name in sas:
        gateway.call("route.add", prefix=prefix, tunnel=name)
    three = ways()
    assert all(count >= 12 for count in counts()) and ways() == three
    gateway.call("route.delete", prefix=prefix, tunnel="tunnel02")
    two = ways()
    assert set(two.values()) == {"tunnel01", "tunnel03"}
    assert all(two[flow] == name for flow, name in three.items() if name != "tunnel02")
    gateway.call("route.add", prefix=prefix, tunnel="tunnel02")
    assert ways() == three
    # Who is shared is as good a source as any.
    into = bench.sa_in("tunnel03")
    sent = probe("10.84.0.1", Bench.HOST)
    bench.send_outside(into.encrypt(sent))
    bench.arrives_inside(sent)
    for name in sas:
        gateway.call("route.delete", prefix=prefix, tunnel=name)
    # The kernel's own, with weights, and changed while packets pass.
    namespace = gateway.namespace
    hops = [("nexthop", "dev", name, "weight", weight) for name, weight in
            (("tunnel01", "1"), ("tunnel02", "6"))]
    namespace.ip("route", "add", prefix, *hops[0], *hops[1])
    wait_until(lambda: [(route["weight"], route["best"]) for route in
                        gateway.routes(prefix=prefix)] == [(1, True), (6, True)], "both are there")
    found = counts()
    assert 3 <= found[0] <= 22 and found[2] == 0, found  # 11.4 of 80 expected
    with gateway.dropping():
        for hop in (hops[1], hops[0]) * 3:
            namespace.ip("route", "replace", prefix, *hop[:3])
            spis_of(bench, flows("10.84.0.1", 10))
        wait_until(lambda: counts() == [80, 0, 0], "the last one takes all")
    namespace.ip("route", "delete", prefix)


def test_next_hops_inside_share_flows_too(bench):
    into = bench.sa_in("tunnel01")
    namespace, macs = bench.gateway.namespace, ["02:00:00:00:00:21", "02:00:00:00:00:22"]
    hops = []
    for i, mac in enumerate(macs):
        namespace.ip("neigh", "replace", f"10.1.0.{21 + i}", "lladdr", mac, "dev", "lan")
        hops += ["nexthop", "via", f"10.1.0.{21 + i}", "dev", "lan"]
    namespace.ip("route", "add", "10.85.0.0/16", *hops)
    wait_until(lambda: [route["best"] for route in
                        bench.gateway.routes(prefix="10.85.0.0/16", kind="port")] == [True, True],
               "both next hops are mirrored")

    def next_hop(frame):
        found = esp.is_ip(frame)
        return found and found.dst == "10.85.0.1" and ":".join(f"{byte:02x}" for byte in frame[:6])

    def sent():
        bench.inside.flush()
        bench.send_outside(*(into.encrypt(packet) for packet in flows(
            "10.85.0.1", source=Bench.BEHIND["tunnel01"])))
        return bench.inside.collect(next_hop, 2, count=80)
    # The neighbours may not have been resolved at the first packets.
    got = wait_until(lambda: (lambda found: found if len(found) == 80 else None)(sent()),
                     "all packets arrive")
    assert all(got.count(mac) >= 20 for mac in macs), got
    # From inside to inside, by the same next hops.
    bench.inside.flush()
    bench.send_inside(*flows("10.85.0.1"))
    got = bench.inside.collect(next_hop, 2, count=80)
    assert len(got) == 80 and all(got.count(mac) >= 20 for mac in macs), got
    namespace.ip("route", "delete", "10.85.0.0/16")
    for i in range(2):
        namespace.ip("neigh", "delete", f"10.1.0.{21 + i}", "dev", "lan")
