# Who may read the invoices of finance: the billing agent, for somebody in finance, in business hours.
package finance

default allow := false

allow if {
	input.subject.id == "spiffe://shop.local/agents/billing"
	input.action.name == "http:GET"
	startswith(input.resource.properties.path, "/v1/invoices/")
	in_finance
	business_hours
}

in_finance if input.context.user.properties.department == "finance"

business_hours if {
	now := [time.now_ns(), "Europe/Berlin"]
	day := time.weekday(now)
	not day in {"Saturday", "Sunday"}
	[hour, _, _] := time.clock(now)
	hour >= 9
	hour < 17
}

# The same with its reasons.
explained := {"allow": true, "reasons": ["finance, in business hours"]} if allow

explained := {"allow": false, "reasons": reasons} if {
	not allow
	reasons := [reason | some reason in reasons_against]
}

reasons_against contains "not in finance" if not in_finance

reasons_against contains "out of hours" if not business_hours

obliged := {"allow": true, "obligations": [{"id": "two-eyes", "type": "approval"}]} if allow

text := "true" if allow

misspelt := {"allow": true, "reason": "no such member"} if allow

hung if count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i * j == input.context.product]) > 0

calls_out if http.send({"method": "GET", "url": "https://example.com/"}).status_code == 200

# Takes long and no memory: members of a set are only compared. The last comparison fails for each of 40^6.
endless if {
	some a, b, c, d, e, f
	digits[a]
	digits[b]
	digits[c]
	digits[d]
	digits[e]
	digits[f]
	f == input.context.product
}

# What an http.send in a negation would permit, were its failure taken for false.
not_called_out if not calls_out

prints if {
	print("nobody sees this")
	allow
}

listed if input.subject.id in data.finance.agents

now_text := time.now_ns()

digits := {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40}
