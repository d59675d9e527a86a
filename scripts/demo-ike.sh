# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
# shellcheck shell=bash disable=SC2154

# scripts/demo: a gateway between a site and AWS's two ends; strongSwan negotiates both tunnels.

plugin_name=libstrongswan-kernel-espgw.so
strongswan=/usr/lib/ipsec
charon_plugins=(random nonce openssl pem pkcs1 pubkey kdf gcm aesni aes sha2 hmac drbg)

gateway_address=203.0.113.1
aws_addresses=(198.51.100.21 192.0.2.22)
aws_mtu=1400 # what strongSwan's own ESP takes

show_picture()
{
	cat <<-END

		                                        ┌═ tunnel01 ═ aws-1 ─┐
		      site ──── gateway ════ internet ══┤                    ├── vpc
		    10.1.0.2    espgw        a router   └═ tunnel02 ═ aws-2 ─┘   192.168.192.10
		                strongSwan

	END
}

make_network()
{
	local i aws
	make_namespace site
	make_namespace gateway
	make_namespace internet 1
	make_namespace vpc
	link site eth0 gateway veth-lan
	link gateway veth-wan internet to-gateway
	give_to_espgw gateway veth-lan
	give_to_espgw gateway veth-wan
	ip -n "$prefix-site" address add 10.1.0.2/24 dev eth0
	ip -n "$prefix-internet" address add 203.0.113.254/24 dev to-gateway
	ip -n "$prefix-vpc" link add bridge type bridge mcast_snooping 0
	ip -n "$prefix-vpc" address add 192.168.192.10/26 dev bridge
	ip -n "$prefix-vpc" link set bridge up
	for i in 1 2; do
		aws=${aws_addresses[i - 1]}
		make_namespace aws-$i 1
		link aws-$i eth0 internet to-aws-$i
		link aws-$i inside vpc to-aws-$i
		ip -n "$prefix-internet" address add "${aws%.*}.254/24" dev to-aws-$i
		ip -n "$prefix-aws-$i" address add "$aws/24" dev eth0
		ip -n "$prefix-aws-$i" route add default via "${aws%.*}.254"
		ip -n "$prefix-aws-$i" address add 192.168.192.$i/26 dev inside
		ip -n "$prefix-aws-$i" address add 169.254.244.$((4 * i - 3))/32 dev lo
		# charon sends everything into the tunnel, by a table of routes of its own: not to the VPC.
		ip -n "$prefix-aws-$i" rule add pref 100 to 192.168.192.0/26 lookup main
		ip -n "$prefix-vpc" link set to-aws-$i master bridge
	done
	# In UDP 4500 the first word of IKE is zero, and of ESP it never is.
	count_packets "udp dport 4500 @th,64,32 != 0" "udp dport { 500, 4500 }"
}

configure_espgw()
{
	local core=$(($(nproc) > 1 ? 1 : 0))
	mkdir "$work/gateway"
	{
		configure_gateway gateway $core 10.1.0.1/24 "\"$gateway_address/24\""
		cat <<-END
			tunnels = (
				{ name = "tunnel01"; if_id = 1; gateway_endpoint = "$gateway_address";
				  customer_endpoint = "${aws_addresses[0]}"; interface_address = "169.254.244.2/30"; },
				{ name = "tunnel02"; if_id = 2; gateway_endpoint = "$gateway_address";
				  customer_endpoint = "${aws_addresses[1]}"; interface_address = "169.254.244.6/30"; }
			);
			routes = (
				{ prefix = "192.168.192.0/26"; tunnel = "tunnel01"; priority = 100; },
				{ prefix = "192.168.192.0/26"; tunnel = "tunnel02"; priority = 200; },
				{ prefix = "0.0.0.0/0"; port = "wan"; next_hop = "203.0.113.254"; }
			);
		END
	} >"$work/gateway/espgw.conf"
}

# ---- strongSwan ----

find_plugin()
{
	local place
	for place in "$plugin" "$build/kernel-espgw/$plugin_name" "$build/app/charon-espgw/$plugin_name"; do
		[ -f "$place" ] && plugin=$place && return
	done
	fail "there is no plugin kernel-espgw in $build; leave out --no-build, or name it by --plugin"
}

# Copies, because AppArmor lets the installed ones read and write in their own places only.
copy_strongswan()
{
	local file
	mkdir "$work/bin"
	for file in "$strongswan/charon" /usr/sbin/swanctl; do
		[ -x "$file" ] || fail "there is no $file; leave out --no-build"
		cp "$file" "$work/bin"
	done
}

# configure_charon NAMESPACE PLUGIN [ITS SETTINGS]: how charon runs there, and its plugins.
configure_charon()
{
	local namespace=$1 kernel=$2 settings=${3-} name
	local names=("${charon_plugins[@]}" "$kernel" kernel-netlink socket-default updown counters vici)
	mkdir -p "$work/$namespace/plugins"
	for name in "${names[@]}"; do
		[ "$name" != kernel-espgw ] || continue
		cp "$strongswan/plugins/libstrongswan-$name.so" "$work/$namespace/plugins" ||
			fail "strongSwan has no plugin $name; leave out --no-build"
	done
	[ "$kernel" != kernel-espgw ] || cp "$plugin" "$work/$namespace/plugins/$plugin_name"
	cat >"$work/$namespace/strongswan.conf" <<-END
		charon {
			load = ${names[*]}
			install_virtual_ip = no
			plugins {
				vici { socket = unix://$work/$namespace/vici }
				$kernel { $settings }
			}
			filelog {
				log {
					path = $work/$namespace/charon.log
					default = 1
					flush_line = yes
				}
			}
		}
		swanctl { load = random pem pkcs1 pubkey openssl }
	END
}

# configure_tunnel NAMESPACE NUMBER LOCAL REMOTE KEY START: adds a connection to swanctl.conf.
configure_tunnel()
{
	local namespace=$1 name=tunnel0$2
	cat >>"$work/$namespace/swanctl.conf" <<-END
		connections {
			$name {
				version = 2
				local_addrs = $3
				remote_addrs = $4
				proposals = aes256gcm16-prfsha256-modp2048
				if_id_in = $2
				if_id_out = $2
				mobike = no
				keyingtries = 0
				dpd_delay = 10s
				local { auth = psk
					id = $3
				}
				remote { auth = psk
					id = $4
				}
				children {
					$name {
						esp_proposals = aes256gcm16-modp2048
						local_ts = 0.0.0.0/0
						remote_ts = 0.0.0.0/0
						start_action = $6
						dpd_action = restart
					}
				}
			}
		}
		secrets {
			ike-$name { id-1 = $3
				id-2 = $4
				secret = $5
			}
		}
	END
}

configure_ike()
{
	local i key
	umask 077
	copy_strongswan
	configure_charon gateway kernel-espgw "load = yes
		socket = $work/gateway/control.sock"
	for i in 1 2; do
		key=$(od -An -N 16 -t x1 /dev/urandom | tr -d ' \n')
		configure_charon aws-$i kernel-libipsec
		configure_tunnel gateway $i $gateway_address "${aws_addresses[i - 1]}" "$key" none
		configure_tunnel aws-$i $i "${aws_addresses[i - 1]}" $gateway_address "$key" start
	done
}

# /run and the folder of plugins are compiled into charon: each has its own.
start_charon()
{
	# shellcheck disable=SC2016 # for the shell in the namespace
	STRONGSWAN_CONF=$work/$1/strongswan.conf start "$1" "$work/$1/charon-output.log" \
		unshare -m --propagation private sh -c 'mount -t tmpfs tmpfs /run &&
			mount --bind "$0" "$1" && exec "$2"' \
		"$work/$1/plugins" $strongswan/plugins "$work/bin/charon"
}

# swanctl_at NAMESPACE ARGUMENTS...
swanctl_at()
{
	local namespace=$1
	shift
	STRONGSWAN_CONF=$work/$namespace/strongswan.conf SWANCTL_DIR=$work/$namespace \
		"$work/bin/swanctl" "$@" --uri "unix://$work/$namespace/vici"
}

load_connections()
{
	wait_for 10 swanctl_at "$1" --stats || fail "charon did not start in $1"
	swanctl_at "$1" --load-all --noprompt --file "$work/$1/swanctl.conf" >"$work/$1/load.log" 2>&1 ||
		fail "swanctl of $1 could not load its connections"
}

is_up()
{
	control gateway --json tunnel show "$1" | tr -d '\n' | grep -q '"state": *"up"'
}

# ---- The proofs ----

# by_tunnel NUMBER: both ways from now on.
by_tunnel()
{
	control gateway route add 192.168.192.0/26 --tunnel "tunnel0$1" --priority 10
	control gateway route add 192.168.192.0/26 --tunnel "tunnel0$((3 - $1))" --priority 20
	ip -n "$prefix-vpc" route replace default via "192.168.192.$1" mtu $aws_mtu
}

current_spi()
{
	control gateway sa list | awk -v tunnel="$1" '$1 == tunnel && $2 == "out" && $5 == "yes" { print $3 }'
}

is_rekeyed()
{
	[ "$(current_spi tunnel02)" != "$1" ]
}

check_rekey()
{
	local before after replies output=$work/rekey-pings
	before=$(current_spi tunnel02)
	replies=$(echo_replies site)
	in_namespace site ping -q -c 300 -i 0.01 -W 2 192.168.192.10 >"$output" 2>&1 </dev/null &
	pids+=($!)
	wait_for 1 false || true # in the middle of the pings
	swanctl_at gateway --rekey --child tunnel02 >/dev/null || fail "swanctl --rekey failed"
	wait_for 5 is_rekeyed "$before" || fail "tunnel02 was not rekeyed"
	after=$(current_spi tunnel02)
	wait "${pids[-1]}" || fail "ping at the rekey: $(cat "$output")"
	printf '   %-58s %s, then %s\n' "swanctl --rekey --child tunnel02; SPI outwards" "$before" "$after"
	say_pings site "site to vpc, by tunnel02, 100 a second meanwhile" 300 "$replies" "$(cat "$output")"
}

check_counters()
{
	esp=$(counter esp)
	ike=$(counter ike)
	others=$(counter other)
	[ "$others" -eq 0 ] || fail "$others packets on the outside links were neither ESP nor IKE"
	{ [ "$esp" -gt 0 ] && [ "$ike" -ge 12 ]; } || fail "the router saw $esp ESP and $ike IKE packets"
}

run_demo()
{
	local i name mtu esp ike others
	find_plugin
	show_picture
	say "Making the network: site, gateway, internet, aws-1, aws-2, vpc"
	make_network
	say "Starting espgw, and strongSwan with the plugin kernel-espgw"
	configure_espgw
	configure_ike
	start_gateway gateway
	await_gateway gateway
	mtu=$(control gateway --json tunnel show tunnel01 | tr -d '\n' | number mtu)
	ip -n "$prefix-site" route add 192.168.192.0/26 via 10.1.0.1 mtu "$mtu"
	start_charon gateway
	load_connections gateway
	say "Starting AWS's ends: strongSwan alone, with an ESP of its own. They begin IKE"
	for i in 1 2; do
		start_charon aws-$i
	done
	for i in 1 2; do
		load_connections aws-$i
	done
	for name in tunnel01 tunnel02; do
		wait_for 20 is_up $name || fail "$name did not come up"
		printf '   %-58s %s\n' "$name is up" "IKEv2, AES-256-GCM-16, SHA2-256, DH 14"
	done

	say "Ping through the tunnels"
	by_tunnel 1
	check_ping site 192.168.192.10 "site to vpc, by tunnel01"
	by_tunnel 2
	check_ping site 192.168.192.10 "site to vpc, by tunnel02"
	check_ping gateway 169.254.244.1 "gateway to aws-1, inside tunnel01"
	check_ping gateway 169.254.244.5 "gateway to aws-2, inside tunnel02"

	say "A rekey while pings go on"
	check_rekey

	say "TCP through the tunnels (iperf3, 3 s each; strongSwan's ESP is the slower end)"
	start_iperf vpc
	by_tunnel 1
	check_iperf site 192.168.192.10 "site to vpc, by tunnel01"
	by_tunnel 2
	check_iperf site 192.168.192.10 "vpc to site, by tunnel02" -R

	say "espctl tunnel list; espctl drops"
	control gateway tunnel list
	control gateway drops
	say "swanctl --list-sas"
	for name in tunnel01 tunnel02; do
		swanctl_at gateway --list-sas --ike $name
	done
	check_counters
	proved="two tunnels by IKEv2, a rekey without loss, $pings of $pings pings and TCP at ${rates[0]} and"
	proved+=" ${rates[1]} Mbit/s; outside passed $esp ESP packets, $ike of IKE and $others others."
}

say_left_running()
{
	cat <<-END
		   $espctl --socket $work/gateway/control.sock tunnel list
		   ip netns exec $prefix-site ping 192.168.192.10
		   ip netns exec $prefix-internet tcpdump -ni to-gateway
		   $work/bin/swanctl --list-sas --uri unix://$work/gateway/vici
		   $work/bin/swanctl --rekey --child tunnel02 --uri unix://$work/gateway/vici
		   less $work/gateway/log $work/gateway/charon.log
	END
}
