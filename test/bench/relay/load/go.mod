module agentid.dev/bench/load

go 1.25
