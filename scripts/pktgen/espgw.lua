-- SPDX-License-Identifier: BSD-3-Clause
-- Copyright (c) 2026 the espgw authors
--
-- What the other scripts of this directory share: settings, the traffic, and one trial.
--
-- Pktgen's port 0 sends, its port 1 receives. For encapsulation port 0 is at the gateway's inside
-- and port 1 at its outside. Settings are environment variables, because Pktgen hands no arguments on:
--
--   GATEWAY_MAC  MAC address of the gateway's port that receives   02:00:00:00:00:01
--   SOURCE       IPv4 address that packets come from               198.18.0.2
--   TARGET       first of 256 addresses behind the tunnel          198.19.0.1
--   SIZES        inner IP packets in bytes                         64,256,512,1400
--   SECONDS      length of a trial                                 10
--   START_DELAY  seconds until the first packet, in which the gateway
--                starts and gets its keys                          5
--   SENDER, RECEIVER  Pktgen's port numbers                        0, 1
--   OUTPUT       file that the results go to                       pktgen-results.txt
--
-- By default these fit config/pktgen.conf. Results go to a file, because Pktgen draws on the
-- screen.

local espgw = {}

-- Pktgen's size counts the Ethernet header and checksum.
local FRAME_OVERHEAD = 14 + 4
local SETTLE_MS = 2500 -- Pktgen renews its counters once a second
local FIRST_BURST_SECONDS = 120

local function setting(name, default)
	local value = os.getenv(name)
	if value == nil or value == "" then
		return default
	end
	return value
end

-- Of a setting; only within what espgw.run runs.
function espgw.number(name, default, minimum)
	local value = tonumber(setting(name, default))
	if value == nil or value < minimum then
		error(string.format("%s: it must be a number, at least %g", name, minimum), 0)
	end
	return value
end

espgw.sender = setting("SENDER", "0")
espgw.receiver = setting("RECEIVER", "1")
espgw.gateway_mac = setting("GATEWAY_MAC", "02:00:00:00:00:01")
espgw.source = setting("SOURCE", "198.18.0.2")
espgw.target = setting("TARGET", "198.19.0.1")
espgw.source_mac = "02:00:00:00:00:11"

local output = assert(io.open(setting("OUTPUT", "pktgen-results.txt"), "w"))

function espgw.say(format, ...)
	output:write(string.format(format, ...), "\n")
	output:flush()
end

function espgw.sizes()
	local sizes = {}
	for size in string.gmatch(setting("SIZES", "64,256,512,1400"), "%d+") do
		sizes[#sizes + 1] = tonumber(size)
	end
	return sizes
end

-- The last byte of the target runs over this many addresses, so that there are many flows.
local FLOWS = 256

local function last_of(address, number)
	local a, b, c, d = string.match(address, "(%d+)%.(%d+)%.(%d+)%.(%d+)")
	local value = ((tonumber(a) * 256 + tonumber(b)) * 256 + tonumber(c)) * 256 + tonumber(d) + number
	return string.format("%d.%d.%d.%d", value // 16777216 % 256, value // 65536 % 256,
		value // 256 % 256, value % 256)
end

-- Packets of one size: Pktgen's "range" mode.
function espgw.send_size(size)
	local port = espgw.sender
	pktgen.set("all", "seq_cnt", 0)
	pktgen.range.dst_mac(port, "start", espgw.gateway_mac)
	pktgen.range.src_mac(port, "start", espgw.source_mac)
	pktgen.range.ip_proto(port, "udp")
	for _, what in ipairs({ "start", "min", "max" }) do
		pktgen.range.src_ip(port, what, espgw.source)
	end
	pktgen.range.src_ip(port, "inc", "0.0.0.0")
	pktgen.range.dst_ip(port, "start", espgw.target)
	pktgen.range.dst_ip(port, "min", espgw.target)
	pktgen.range.dst_ip(port, "max", last_of(espgw.target, FLOWS - 1))
	pktgen.range.dst_ip(port, "inc", "0.0.0.1")
	for _, what in ipairs({ "start", "min", "max" }) do
		pktgen.range.pkt_size(port, what, size + FRAME_OVERHEAD)
	end
	pktgen.range.pkt_size(port, "inc", 0)
	-- The rate is reckoned with the size of a single packet.
	pktgen.set(port, "size", size + FRAME_OVERHEAD)
	pktgen.set_range(port, "on")
end

-- Packets of a list of sizes in turn: Pktgen's "sequence" mode.
function espgw.send_sequence(sizes)
	local port = espgw.sender
	pktgen.set_range(port, "off")
	for number, size in ipairs(sizes) do
		pktgen.seqTable(number - 1, port, {
			eth_dst_addr = espgw.gateway_mac,
			eth_src_addr = espgw.source_mac,
			ip_dst_addr = last_of(espgw.target, number),
			ip_src_addr = espgw.source .. "/24",
			sport = 1024 + number,
			dport = 2000,
			ethType = "ipv4",
			ipProto = "udp",
			vlanid = 1,
			pktSize = size + FRAME_OVERHEAD,
			teid = 0,
			gtpu_teid = 0,
			cos = 0,
			tos = 0,
		})
	end
	pktgen.set(port, "seq_cnt", #sizes)
end

local function counters()
	local stats = pktgen.portStats("all", "port")
	return stats[tonumber(espgw.sender)].opackets, stats[tonumber(espgw.receiver)].ipackets
end

-- Seconds since the machine's start, in hundredths. (os.time has whole ones only, os.clock is the
-- processor's time.)
local function now()
	local file = assert(io.open("/proc/uptime"))
	local seconds = file:read("n")
	file:close()
	return seconds
end

-- pktgen.delay sleeps 10 ms again and again, and each time too long where the core is shared: then
-- 3 s take more than 4.
local function wait(seconds)
	local begun = now()
	while now() - begun < seconds do
		pktgen.delay(10)
	end
	return now() - begun
end

-- Where a link was still down when Pktgen started, it has planned its first burst for about a minute
-- later, whatever is set since. A trial must not begin before that burst.
local is_sending = false

local function wait_for_first_burst()
	local begun, before = now(), counters()
	pktgen.start(espgw.sender)
	repeat
		if now() - begun > FIRST_BURST_SECONDS then
			error("Pktgen sends nothing; is port " .. espgw.sender .. " connected, and up?", 0)
		end
		pktgen.delay(SETTLE_MS)
	until counters() > before
	pktgen.stop(espgw.sender)
	is_sending = true
end

-- Sends at `rate` percent of the link for `seconds`. Returns packets sent, packets that came back,
-- and how many a second that is.
function espgw.trial(rate, seconds)
	pktgen.set(espgw.sender, "rate", rate)
	if not is_sending then
		wait_for_first_burst()
	end
	pktgen.delay(SETTLE_MS)
	local sent_before, received_before = counters()
	pktgen.start(espgw.sender)
	local took = wait(seconds)
	pktgen.stop(espgw.sender)
	pktgen.delay(SETTLE_MS)
	local sent, received = counters()
	sent, received = sent - sent_before, received - received_before
	return sent, received, received / took
end

-- Runs a script: measure() with all that goes before and after. Where it fails, the results say why;
-- Pktgen ends in any case.
function espgw.run(title, measure)
	pktgen.screen("off")
	pktgen.clr()
	local fine, problem = pcall(function()
		espgw.seconds = espgw.number("SECONDS", "10", 0.1)
		pktgen.delay(math.floor(1000 * espgw.number("START_DELAY", "5", 0)))
		espgw.say("# %s: port %s sends, port %s receives, trials of %g s", title, espgw.sender,
			espgw.receiver, espgw.seconds)
		measure()
	end)
	if not fine then
		espgw.say("# failed: %s", problem)
	end
	output:close()
	pktgen.quit()
end

return espgw
