-- SPDX-License-Identifier: BSD-3-Clause
-- Copyright (c) 2026 the espgw authors
--
-- IMIX: inner packets of 64, 570 and 1400 bytes, 7:4:1, at RATES (by default 25,50,75,100) percent
-- of the link.
-- Run against Pktgen 23.03 over memif. Settings: espgw.lua; SIZES has no effect. How to run it:
-- docs/benchmarking.md.

-- Pktgen runs a script as text, so it does not know where the script is.
package.path = (os.getenv("ESPGW_PKTGEN") or "scripts/pktgen") .. "/?.lua;" .. package.path
local espgw = require("espgw")

local IMIX = { 64, 570, 64, 64, 570, 64, 1400, 64, 570, 64, 64, 570 }

espgw.run("IMIX", function()
	espgw.say("# rate_percent sent received lost_percent received_per_second")
	espgw.send_sequence(IMIX)
	for rate in string.gmatch(os.getenv("RATES") or "25,50,75,100", "[%d.]+") do
		local sent, received, per_second = espgw.trial(tonumber(rate), espgw.seconds)
		local lost = sent == 0 and 0 or 100 * (1 - received / sent)
		espgw.say("%s %d %d %.4f %.0f", rate, sent, received, lost, per_second)
	end
end)
