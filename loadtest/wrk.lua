-- wrk … URL -- METHOD FILE [keys=PREFIX] [body=FILE] [prefer=VALUE] [apikey=KEY]: requests to random lines of FILE,
-- which are paths. With keys, each request has its own idempotency key, which begins with PREFIX.
-- One path costs wrk as much as ten thousand, so that rows of the benchmark can be compared.

local body = '{"operationType":"DEPOSIT","amount":"1.50"}'
local headers = {["Content-Type"] = "application/json"}
local requests, paths = {}, {}
local keys, sent = nil, 0

function init(args)
   local method, file = args[1], args[2]
   local given = {}
   for at = 3, #args do
      local name, value = args[at]:match("^(%w+)=(.*)$")
      given[name] = value
   end
   keys, headers["Prefer"] = given.keys, given.prefer
   if given.apikey then
      headers["Authorization"] = "Bearer " .. given.apikey
   end
   if given.body then
      body = io.open(given.body):read("*a")
   end
   for path in io.lines(file) do
      paths[#paths + 1] = path
      if method == "POST" then
         requests[#requests + 1] = wrk.format("POST", path, headers, body)
      else
         requests[#requests + 1] = wrk.format(method, path)
      end
   end
end

function request()
   if keys then
      sent = sent + 1
      headers["Idempotency-Key"] = keys .. sent
      return wrk.format("POST", paths[math.random(#paths)], headers, body)
   end
   return requests[math.random(#requests)]
end

function done(summary, latency)
   local errors = summary.errors
   local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   io.write(string.format(
      '\n{"requests": %d, "seconds": %.6f, "failures": %d, "p50": %.3f, "p99": %.3f, "slowest": %.3f}\n',
      summary.requests, summary.duration / 1e6, failures,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3
   ))
end
