-- SPDX-License-Identifier: BSD-3-Clause
-- Copyright (c) 2026 the espgw authors
--
-- Latency at RATES (by default 10,50,90) percent of the link, for each size.
--
-- NOT TESTED with traffic: it was loaded by Pktgen 23.03, but never had two gateways between its
-- ports.
--
-- Pktgen writes its time stamp into the payload, which encapsulation enciphers. So the receiving
-- port is where the packets are in clear again: at the inside of a second gateway that decapsulates.
-- The figure is then that of both gateways and the links.
-- Settings: espgw.lua. How to run it: docs/benchmarking.md.

-- Pktgen runs a script as text, so it does not know where the script is.
package.path = (os.getenv("ESPGW_PKTGEN") or "scripts/pktgen") .. "/?.lua;" .. package.path
local espgw = require("espgw")

espgw.begin("latency")
espgw.say("# size rate_percent sent received probes min_us average_us max_us")
for _, size in ipairs(espgw.sizes()) do
	espgw.send_size(size)
	for rate in string.gmatch(os.getenv("RATES") or "10,50,90", "[%d.]+") do
		pktgen.latency("all", "on")
		local sent, received = espgw.trial(tonumber(rate), espgw.seconds)
		local latency = pktgen.pktStats("all")[tonumber(espgw.receiver)].latency
		espgw.say("%d %s %d %d %d %.2f %.2f %.2f", size, rate, sent, received, latency.num_pkts,
			latency.min_us, latency.avg_us, latency.max_us)
		pktgen.latency("all", "off")
	end
end
espgw.done()
