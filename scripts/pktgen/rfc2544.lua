-- SPDX-License-Identifier: BSD-3-Clause
-- Copyright (c) 2026 the espgw authors
--
-- Throughput by RFC 2544, section 26.1: the highest rate at which nothing is lost, for each size,
-- by bisection. A rate counts as passed when as many packets came back as were sent (or a share of
-- them: ALLOWED_LOSS, in percent, by default 0). The rate that is found is then tried for
-- CONFIRM_SECONDS (by default 60; 0: not).
-- Run against Pktgen 23.03 over memif. Settings: espgw.lua, and STEP: the rate's resolution in
-- percent of the link, by default 0.5.
-- How to run it: docs/benchmarking.md.

-- Pktgen runs a script as text, so it does not know where the script is.
package.path = (os.getenv("ESPGW_PKTGEN") or "scripts/pktgen") .. "/?.lua;" .. package.path
local espgw = require("espgw")

local allowed, step, confirm_seconds

local function passes(size, rate, seconds)
	local sent, received, per_second = espgw.trial(rate, seconds)
	local lost = sent == 0 and 100 or 100 * (1 - received / sent)
	espgw.say("trial %d %.2f %d %d %.4f %.0f", size, rate, sent, received, lost, per_second)
	return sent > 0 and lost <= allowed, per_second
end

local function search(size)
	local good, bad, best = 0, 100, 0
	local passed, per_second = passes(size, bad, espgw.seconds)
	if passed then
		return bad, per_second
	end
	while bad - good > step do
		local rate = (good + bad) / 2
		passed, per_second = passes(size, rate, espgw.seconds)
		if passed then
			good, best = rate, per_second
		else
			bad = rate
		end
	end
	return good, best
end

espgw.run("RFC 2544 throughput", function()
	allowed = espgw.number("ALLOWED_LOSS", "0", 0)
	step = espgw.number("STEP", "0.5", 0.01)
	confirm_seconds = espgw.number("CONFIRM_SECONDS", "60", 0)
	espgw.say("# trial size rate_percent sent received lost_percent received_per_second")
	espgw.say("# found size rate_percent received_per_second confirmed")
	for _, size in ipairs(espgw.sizes()) do
		espgw.send_size(size)
		local rate, per_second = search(size)
		local confirmed = "not tried"
		if rate > 0 and confirm_seconds > 0 then
			confirmed = passes(size, rate, confirm_seconds) and "yes" or "no"
		end
		espgw.say("found %d %.2f %.0f %s", size, rate, per_second, confirmed)
	end
end)
