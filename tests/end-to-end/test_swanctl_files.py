# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The examples for swanctl, loaded into a real charon, fit those for espgw."""

import re

import pytest

import ike
from testbed import ROOT

FILES = sorted((ROOT / "config/swanctl").glob("*.conf"))


@pytest.fixture(scope="module")
def charon(module_network):
    namespace = module_network.namespace("swanctl")
    return module_network.keep(ike.Charon(namespace, "swanctl")).start()


def load(charon, text):
    """The connections that charon has of this text, by name."""
    file = charon.directory / "example.conf"
    # Loading shall not start IKE with anybody.
    file.write_text(re.sub(r"start_action = \S+", "start_action = none", text))
    charon.swanctl("--load-all", "--noprompt", "--file", file)
    found = {}
    for _, message in ike.parse_raw(charon.swanctl("--list-conns", "--raw").stdout):
        found.update(message)
    return found


def values(text, name):
    return re.findall(rf"^\s*{name} = \"?([^\s\";]+)", text, re.M)


def test_there_are_examples():
    assert [file.name for file in FILES] == ["aws-transit-gateway.conf", "cloudflare.conf"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_example_fits_its_gateway(charon, file):
    text, gateway = file.read_text(), (ROOT / "config" / file.name).read_text()
    connections = load(charon, text)
    assert sorted(connections) == values(gateway, "name")[-2:] == ["tunnel01", "tunnel02"]
    for name, customer, endpoint in zip(sorted(connections), values(gateway, "customer_endpoint"),
                                        values(gateway, "gateway_endpoint")):
        connection = connections[name]
        assert connection["version"] == "IKEv2"
        assert connection["remote_addrs"] == [customer]
        assert connection["local_addrs"] == [endpoint]
        child = connection["children"][name]
        assert child["local-ts"] == child["remote-ts"] == ["0.0.0.0/0"]
    assert values(text, "if_id_in") == values(text, "if_id_out") == values(gateway, "if_id")
    assert len(values(text, "secret")) == 2


def test_what_the_guide_shows_is_in_the_example(charon):
    guide = (ROOT / "docs/cloudflare.md").read_text()
    text = next(block for block in re.findall(r"^```\n(.*?)^```$", guide, re.M | re.S)
                if block.startswith("connections {"))
    assert list(load(charon, text)) == ["tunnel01"]
    example = (ROOT / "config/swanctl/cloudflare.conf").read_text()
    plain = [re.sub(r"\s+#.*", "", line) for line in example.splitlines()]
    for line in text.splitlines():
        assert line in plain or "secret =" in line, line
