# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
# shellcheck shell=bash disable=SC2154

# scripts/demo --static: two gateways and two tunnels, keys by espctl.

show_picture()
{
	cat <<-END

		    site-a ──── gateway-a ════ internet ════ gateway-b ──── site-b
		   10.1.0.2     espgw          a router      espgw          192.168.192.10

	END
}

make_network()
{
	make_namespace site-a
	make_namespace gateway-a
	make_namespace internet 1
	make_namespace gateway-b
	make_namespace site-b
	link site-a eth0 gateway-a veth-lan
	link gateway-a veth-wan internet to-a
	link internet to-b gateway-b veth-wan
	link gateway-b veth-lan site-b eth0
	local gateway
	for gateway in gateway-a gateway-b; do
		give_to_espgw $gateway veth-lan
		give_to_espgw $gateway veth-wan
	done
	ip -n "$prefix-site-a" address add 10.1.0.2/24 dev eth0
	ip -n "$prefix-site-b" address add 192.168.192.10/26 dev eth0
	ip -n "$prefix-internet" address add 203.0.113.254/24 dev to-a
	ip -n "$prefix-internet" address add 198.51.100.254/24 dev to-b
	count_packets "ip protocol esp" "udp dport { 500, 4500 }"
}

# configure NAME SIDE_NET ROUTER ENDPOINT1 ENDPOINT2 FAR1 FAR2 INSIDE1 INSIDE2 FAR_NET CORE
configure()
{
	local name=$1 inside=$2 router=$3 endpoints="\"$4/24\"" core=${11}
	[ "$4" = "$5" ] || endpoints+=", \"$5/24\""
	mkdir "$work/$name"
	{
		configure_gateway "$name" "$core" "$inside" "$endpoints"
		cat <<-END
			tunnels = (
				{ name = "tunnel01"; gateway_endpoint = "$4"; customer_endpoint = "$6";
				  interface_address = "$8/30"; },
				{ name = "tunnel02"; gateway_endpoint = "$5"; customer_endpoint = "$7";
				  interface_address = "$9/30"; }
			);
			routes = (
				{ prefix = "0.0.0.0/0"; port = "wan"; next_hop = "$router"; },
				{ prefix = "${10}"; tunnel = "tunnel01"; priority = 100; },
				{ prefix = "${10}"; tunnel = "tunnel02"; priority = 200; }
			);
		END
	} >"$work/$name/espgw.conf"
}

start_gateways()
{
	local gateway core
	core=$(($(nproc) > 1 ? 1 : 0))
	configure gateway-a 10.1.0.1/24 203.0.113.254 203.0.113.1 203.0.113.1 198.51.100.1 198.51.100.2 \
		169.254.244.2 169.254.244.6 192.168.192.0/26 0
	configure gateway-b 192.168.192.1/26 198.51.100.254 198.51.100.1 198.51.100.2 203.0.113.1 \
		203.0.113.1 169.254.244.1 169.254.244.5 10.1.0.0/24 $core
	for gateway in gateway-a gateway-b; do
		start_gateway $gateway
	done
	for gateway in gateway-a gateway-b; do
		await_gateway $gateway
	done
}

# add_sa TUNNEL FROM TO: a fresh key for one direction of a tunnel, put in at both ends.
add_sa()
{
	local key=$work/$1-$2.key spi
	"$espctl" key generate "$key" >/dev/null
	spi=$(control "$3" spi reserve "$1")
	control "$3" sa add "$1" in "$spi" --keys "$key" >/dev/null
	control "$2" sa add "$1" out "$spi" --keys "$key" >/dev/null
	rm "$key"
}

# Packets that a gateway's outbound SAs have encrypted: health probes are among them, and count for no
# tunnel's traffic.
encrypted()
{
	control "$1" --json sa list | /usr/bin/python3 -c '
import json, sys
print(sum(sa["packets"] for sa in json.load(sys.stdin)["sas"] if sa["direction"] == "out"))'
}

check_counters()
{
	local sent=0 gateway
	esp=$(counter esp)
	others=$(($(counter other) + $(counter ike)))
	for gateway in gateway-a gateway-b; do
		sent=$((sent + $(encrypted $gateway)))
	done
	[ "$others" -eq 0 ] || fail "$others packets on the outside links were not ESP"
	{ [ "$esp" -gt 0 ] && [ "$esp" -le "$sent" ]; } ||
		fail "the router saw $esp ESP packets, the gateways sent $sent"
}

run_demo()
{
	local tunnel mtu before moved gateway esp others
	show_picture
	say "Making the network: site-a, gateway-a, internet, gateway-b, site-b"
	make_network
	say "Starting two espgw gateways"
	start_gateways
	say "Adding SAs with fresh keys over the control sockets: two tunnels, two directions"
	for tunnel in tunnel01 tunnel02; do
		add_sa $tunnel gateway-a gateway-b
		add_sa $tunnel gateway-b gateway-a
	done
	mtu=$(control gateway-a --json tunnel show tunnel01 | tr -d '\n' | number mtu)
	ip -n "$prefix-site-a" route add 192.168.192.0/26 via 10.1.0.1 mtu "$mtu"
	ip -n "$prefix-site-b" route add 10.1.0.0/24 via 192.168.192.1 mtu "$mtu"

	say "Ping through the tunnels"
	check_ping site-a 192.168.192.10 "site-a to site-b, by tunnel01"
	check_ping site-b 10.1.0.2 "site-b to site-a, by tunnel01"
	check_ping gateway-a 169.254.244.1 "gateway-a to gateway-b, inside tunnel01"
	check_ping gateway-a 169.254.244.5 "gateway-a to gateway-b, inside tunnel02"

	say "TCP through the tunnels (iperf3, 3 s each)"
	start_iperf site-b
	check_iperf site-a 192.168.192.10 "site-a to site-b, by tunnel01"
	before=$(carried gateway-b tunnel02 out_packets)
	control gateway-a route add 192.168.192.0/26 --tunnel tunnel02 --priority 50
	control gateway-b route add 10.1.0.0/24 --tunnel tunnel02 --priority 50
	check_iperf site-a 192.168.192.10 "site-b to site-a, moved to tunnel02 by espctl route add" -R
	moved=$(($(carried gateway-b tunnel02 out_packets) - before))
	[ "$moved" -gt 1000 ] || fail "only $moved packets went by tunnel02 after the routes had moved"

	for gateway in gateway-a gateway-b; do
		say "$gateway: espctl tunnel list; espctl drops"
		control $gateway tunnel list
		control $gateway drops
	done
	check_counters
	proved="$pings of $pings pings and TCP at ${rates[0]} and ${rates[1]} Mbit/s by two tunnels;"
	proved+=" outside passed $esp ESP packets and $others others."
}

say_left_running()
{
	cat <<-END
		   $espctl --socket $work/gateway-a/control.sock tunnel list
		   ip netns exec $prefix-site-a ping 192.168.192.10
		   ip netns exec $prefix-internet tcpdump -ni to-a
		   ip netns exec $prefix-gateway-a ip address
		   less $work/gateway-a/log
	END
}
