module agentid.test/load

go 1.24
