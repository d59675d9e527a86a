-- SPDX-License-Identifier: BSD-3-Clause
-- Copyright (c) 2026 the espgw authors
--
-- Rate sweep: what comes back at 10, 20 ... 100 percent of the link, for each size.
-- Run against Pktgen 23.03 over memif. Settings: espgw.lua. How to run it: docs/benchmarking.md.

-- Pktgen runs a script as text, so it does not know where the script is.
package.path = (os.getenv("ESPGW_PKTGEN") or "scripts/pktgen") .. "/?.lua;" .. package.path
local espgw = require("espgw")

espgw.run("rate sweep", function()
	espgw.say("# size rate_percent sent received lost_percent received_per_second")
	for _, size in ipairs(espgw.sizes()) do
		espgw.send_size(size)
		for rate = 10, 100, 10 do
			local sent, received, per_second = espgw.trial(rate, espgw.seconds)
			local lost = sent == 0 and 0 or 100 * (1 - received / sent)
			espgw.say("%d %d %d %d %.4f %.0f", size, rate, sent, received, lost, per_second)
		end
	end
end)
