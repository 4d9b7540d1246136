-- wrk … URL -- METHOD FILE: requests to paths drawn at random from the lines of FILE.
-- One path or ten thousand cost wrk the same, so that rows of the benchmark can be compared.

local body = '{"operationType":"DEPOSIT","amount":"1.50"}'
local requests = {}

function init(args)
   local method, file = args[1], args[2]
   for path in io.lines(file) do
      if method == "POST" then
         requests[#requests + 1] = wrk.format("POST", path, {["Content-Type"] = "application/json"}, body)
      else
         requests[#requests + 1] = wrk.format(method, path)
      end
   end
end

function request()
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
