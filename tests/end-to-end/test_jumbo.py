# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Jumbo frames: they pass, or are refused by name before anything starts."""

import esp
from testbed import wait_until

ENDS = ("203.0.113.1", "203.0.113.2")
INSIDE = ("169.254.244.1", "169.254.244.2")


def config(side, device, mtu=9000):
    """Host to host through one tunnel: the kernel's TUN is the only inside that takes such packets
    here."""
    return {
        "ports": [
            {"name": "lan", "side": "inside", "device": "net_null0,no-rx=1",
             "addresses": [f"10.{side + 1}.0.1/24"]},
            {"name": "wan", "side": "outside", "device": device, "mtu": mtu,
             "addresses": [f"{ENDS[side]}/24"]},
        ],
        "workers": {"cores": [side]},
        "tunnels": [{"name": "tunnel01", "gateway_endpoint": ENDS[side],
                     "customer_endpoint": ENDS[1 - side],
                     "interface_address": f"{INSIDE[side]}/30"}],
    }


def joined_by_vhost_user(network, directory, mtus):
    """The other software devices of this DPDK take no MTU over 1500."""
    path = directory / "vhost"
    devices = (f"net_vhost0,iface={path}", f"net_virtio_user0,path={path},mac=02:00:00:00:00:02")
    gateways = [network.gateway(network.namespace(f"gateway-{side}"),
                                config(side, devices[side], mtus[side])).start()
                for side in range(2)]
    for source, destination in (ENDS, ENDS[::-1]):
        sa = esp.Sa(source, destination)
        out, into = gateways if source == ENDS[0] else gateways[::-1]
        into.call("sa.add", tunnel="tunnel01", direction="in", **sa.parameters())
        out.call("sa.add", tunnel="tunnel01", direction="out", **sa.parameters())
    gateways[0].namespace.wait_for(INSIDE[1], 15)
    return gateways


def test_jumbo_frames_pass(network, tmp_path):
    gateways = joined_by_vhost_user(network, tmp_path, (9000, 9000))
    mtu = gateways[0].tunnel("tunnel01")["mtu"]
    assert mtu == 8946
    for size in (1400, 2000, 4000, mtu - 8):  # the TUN reckons with UDP encapsulation
        gateways[0].namespace.ping(INSIDE[1], 5, 0.02, size - 28, True, "-M", "do")
    for gateway in gateways:
        assert max(sa["bytes"] for sa in gateway.call("sa.list")["sas"]) > 5 * (mtu - 8)
        assert not {"not_linear", "bad_frame", "bad_header", "too_big"} & gateway.drops().keys()


def test_what_is_larger_than_a_buffer_is_dropped_by_name(network, tmp_path):
    """The far side sends more than this port's MTU: the frame comes over several buffers."""
    gateways = joined_by_vhost_user(network, tmp_path, (9000, 1500))
    with gateways[1].dropping(not_linear=1):
        done = gateways[0].namespace.run("ping", "-c", 1, "-W", 0.3, "-s", 4000, "-M", "do",
                                         INSIDE[1], check=False)
        assert "0 received" in done.stdout


def test_a_device_that_takes_no_jumbo_frames_says_so(network):
    namespace = network.namespace("gateway")
    network.link(namespace, "veth0", network.namespace("other"), "eth0", mtu=9000)
    gateway = network.gateway(namespace, config(0, "net_af_packet0,iface=veth0"))
    gateway.spawn()
    wait_until(lambda: not gateway.alive, "it does not start", 15)
    assert 'port "wan": mtu = 9000, but the device takes at most 1500' in gateway.tail()
