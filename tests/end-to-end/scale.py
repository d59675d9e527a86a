# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""A gateway with very many tunnels and routes. By hand, as root, it says how long the start takes
and how much memory the gateway has then:

    sudo /usr/bin/python3 tests/end-to-end/scale.py 10000 500000
"""

import ipaddress
import pathlib
import sys
import time

import testbed


def _addresses(first, step, count):
    start = int(ipaddress.ip_address(first))
    return (ipaddress.ip_address(start + step * i) for i in range(count))


def _tunnels(count):
    far, near = _addresses("198.18.0.1", 1, count), _addresses("172.16.0.0", 2, count)
    return ", ".join(
        f'{{ name = "t{i}"; gateway_endpoint = "203.0.113.1"; customer_endpoint = "{there}"; '
        f'interface_address = "{here}/31"; }}' for i, (there, here) in enumerate(zip(far, near)))


def _routes(count, tunnels):
    return ", ".join(
        ['{ prefix = "0.0.0.0/0"; port = "wan"; next_hop = "203.0.113.254"; }',
         *(f'{{ prefix = "{prefix}/24"; tunnel = "t{i % tunnels}"; }}'
           for i, prefix in enumerate(_addresses("20.0.0.0", 256, count - 1)))])


def make(network, tunnels, routes):
    """The gateway, not started: its ports, tunnels t0, t1... and routes 20.0.0.0/24... to them."""
    namespace, inside, outside = (network.namespace(name) for name in ("many", "in", "out"))
    network.link(namespace, "veth-lan", inside, "eth0")
    network.link(namespace, "veth-wan", outside, "eth0")
    network.give_to_espgw(namespace, "veth-lan", "veth-wan")
    gateway = network.gateway(namespace, {
        "gateway": {"max_routes": 2 * routes + 1000, "max_sas": max(1024, 4 * tunnels),
                    "memory_mb": 2048},
        "ports": [
            {"name": "lan", "side": "inside", "device": "net_af_packet0,iface=veth-lan",
             "addresses": ["10.255.0.1/24"]},
            {"name": "wan", "side": "outside", "device": "net_af_packet1,iface=veth-wan",
             "addresses": ["203.0.113.1/24"]}]})
    write(gateway, gateway.file, tunnels, routes)
    return gateway


def write(gateway, file, tunnels, routes, used=None):
    """The configuration; routes go to the first `used` tunnels, by default to all."""
    testbed.write_config(file, gateway.config)
    with open(file, "a") as text:
        text.write(f"tunnels = ( {_tunnels(tunnels)} );\n"
                   f"routes = ( {_routes(routes, used or tunnels)} );\n")


def start(gateway, seconds=60):
    """Returns how long it took from exec until ready."""
    began = time.monotonic()
    with open(gateway.log, "a") as log:
        gateway.process = gateway.namespace.popen(testbed.ESPGW, "--config", gateway.file,
                                                  stdout=log, stderr=log)

    def ready():
        assert gateway.alive, gateway.tail()
        return "espgw: ready" in gateway.log.read_text()
    testbed.wait_until(ready, "the gateway is ready", seconds)
    return time.monotonic() - began


def main():
    tunnels, routes = int(sys.argv[1]), int(sys.argv[2])
    network = testbed.Network()
    try:
        gateway = make(network, tunnels, routes)
        print(f"{tunnels} tunnels, {routes} routes: ready after {start(gateway):.1f} s")
        status = pathlib.Path(f"/proc/{gateway.process.pid}/status").read_text()
        print(next(line for line in status.splitlines() if line.startswith("VmRSS")))
        for command in ("tunnel list", "tunnel list --name t99*", "route list --limit 100",
                        "route list --tunnel t7", "config reload"):
            began = time.monotonic()
            gateway.espctl(*command.split())
            print(f"espctl {command}: {time.monotonic() - began:.2f} s")
        more = gateway.file.with_name("more.conf")
        write(gateway, more, tunnels + 1, routes, tunnels)
        for what, file in (("one tunnel more", more), ("one less", gateway.file)):
            began = time.monotonic()
            gateway.espctl("config", "apply", file)
            print(f"espctl config apply, {what}: {time.monotonic() - began:.2f} s")
        gateway.stop()
    finally:
        network.close()


if __name__ == "__main__":
    main()
