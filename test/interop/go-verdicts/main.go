// A second opinion: go-spiffe says accept or reject of SPIFFE IDs, JWT-SVIDs and bundles. One line of JSON in, one line out, in order.
package main

import (
	"bufio"
	"encoding/json"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

// question is what to judge. Bytes, not text: JSON could not carry every string that a parser must refuse.
type question struct {
	Kind string `json:"kind"`
	Text []byte `json:"text"`
	// Of a JWT-SVID: the trust domain, its JWK Set and who the token must be for.
	TrustDomain string `json:"trustDomain"`
	Bundle      []byte `json:"bundle"`
	Audience    string `json:"audience"`
}

// verdict of a bundle says also how much of it counts.
type verdict struct {
	Accept bool   `json:"accept"`
	Reason string `json:"reason,omitempty"`
	X509   int    `json:"x509"`
	JWT    int    `json:"jwt"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		answer, err := judge(asked)
		answer.Accept = err == nil
		if err != nil {
			answer.Reason = err.Error()
		}
		if err := answers.Encode(answer); err != nil {
			panic(err)
		}
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}

func judge(asked question) (answer verdict, err error) {
	text := string(asked.Text)
	switch asked.Kind {
	case "spiffe-id":
		_, err = spiffeid.FromString(text)
	case "jwt-svid":
		var bundle *jwtbundle.Bundle
		domain := spiffeid.RequireTrustDomainFromString(asked.TrustDomain)
		if bundle, err = jwtbundle.Parse(domain, asked.Bundle); err != nil {
			panic(err)
		}
		_, err = jwtsvid.ParseAndValidate(text, bundle, []string{asked.Audience})
	case "bundle":
		var bundle *spiffebundle.Bundle
		bundle, err = spiffebundle.Parse(spiffeid.RequireTrustDomainFromString(asked.TrustDomain), asked.Text)
		if err == nil {
			answer.X509 = len(bundle.X509Authorities())
			answer.JWT = len(bundle.JWTAuthorities())
		}
	default:
		panic("unknown kind " + asked.Kind)
	}
	return answer, err
}
