-- SPDX-License-Identifier: BSD-3-Clause
-- Copyright (c) 2026 the espgw authors
--
-- Latency at RATES (by default 10,50,90) percent of the link, for each size.
--
-- Pktgen writes its time stamp into the payload, which encapsulation enciphers. So the receiving
-- port is where the packets are in clear again: at the inside of a second gateway that decapsulates.
-- The figure is then that of both gateways and the links.
--
-- The time stamps are in probes, packets of their own that Pktgen puts among the others, at most one
-- each 10 ms. They count as `sent` and `received`, and have 110 bytes of IP whatever the size of the
-- others. A probe that comes after a lost one is not measured.
-- Run against Pktgen 23.03 over memif. Settings: espgw.lua. How to run it: docs/benchmarking.md.

-- Pktgen runs a script as text, so it does not know where the script is.
package.path = (os.getenv("ESPGW_PKTGEN") or "scripts/pktgen") .. "/?.lua;" .. package.path
local espgw = require("espgw")

local PAGE_MS = 2500 -- Pktgen draws a page once a second

-- Probes are addressed like the packets of Pktgen's "single" mode, also in others.
local function address_probes()
	pktgen.set_mac(espgw.sender, "dst", espgw.gateway_mac)
	pktgen.set_mac(espgw.sender, "src", espgw.source_mac)
	pktgen.set_ipaddr(espgw.sender, "dst", espgw.target)
	pktgen.set_ipaddr(espgw.sender, "src", espgw.source .. "/24")
end

-- What the receiving port has measured since its counters were cleared. Pktgen reckons the average
-- only when it draws the page that shows it.
local function measured()
	pktgen.page("latency")
	pktgen.screen("on")
	pktgen.delay(PAGE_MS)
	pktgen.screen("off")
	return pktgen.pktStats("all")[tonumber(espgw.receiver)].latency
end

espgw.run("latency", function()
	espgw.say("# size rate_percent sent received probes min_us average_us max_us")
	for _, size in ipairs(espgw.sizes()) do
		espgw.send_size(size)
		address_probes()
		for rate in string.gmatch(os.getenv("RATES") or "10,50,90", "[%d.]+") do
			pktgen.clr() -- or the least and the most are of all trials together
			pktgen.latency("all", "on")
			local sent, received = espgw.trial(tonumber(rate), espgw.seconds)
			pktgen.latency("all", "off")
			local latency = measured()
			espgw.say("%d %s %d %d %d %.2f %.2f %.2f", size, rate, sent, received, latency.num_pkts,
				latency.min_us, latency.avg_us, latency.max_us)
		end
	end
end)
