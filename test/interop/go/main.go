// An unmodified go-spiffe workload, driven by the interop tests: one subcommand for each thing a workload does.
// The Workload API is found through SPIFFE_ENDPOINT_SOCKET. Each result is one line of JSON on standard output.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	ctx := context.Background()
	arguments := os.Args[2:]
	var err error
	switch os.Args[1] {
	case "fetch":
		err = fetch(ctx)
	case "watch":
		err = watch(ctx)
	case "jwt":
		err = jwt(ctx, arguments[0])
	case "bundles":
		err = bundles(ctx)
	case "serve":
		err = serve(ctx, spiffeid.RequireFromString(arguments[0]))
	case "dial":
		err = dial(ctx, arguments[0], spiffeid.RequireFromString(arguments[1]))
	case "fetch-bundle":
		err = fetchBundle(ctx, arguments[0], spiffeid.RequireFromString(arguments[1]), arguments[2])
	case "call":
		err = call(ctx, optional(arguments, 0))
	case "load":
		err = load(ctx, arguments[0], arguments[1:])
	case "serve-bundle":
		err = serveBundle(ctx)
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func optional(arguments []string, index int) string {
	if index < len(arguments) {
		return arguments[index]
	}
	return ""
}

func say(fields map[string]any) {
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 10*time.Second)
}

func describe(svid *x509svid.SVID, bundle *x509bundle.Set) (map[string]any, error) {
	// The chain verifies to its own trust domain's bundle, by go-spiffe's own verifier.
	id, _, err := x509svid.Verify(svid.Certificates, bundle)
	if err != nil {
		return nil, err
	}
	own, err := bundle.GetX509BundleForTrustDomain(id.TrustDomain())
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"id":          id.String(),
		"hint":        svid.Hint,
		"chain":       encoded(svid.Certificates),
		"authorities": encoded(own.X509Authorities()),
	}, nil
}

// encoded gives DER; JSON writes bytes as base64.
func encoded(certificates []*x509.Certificate) [][]byte {
	var list [][]byte
	for _, one := range certificates {
		list = append(list, one.Raw)
	}
	return list
}

func fetch(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	x509Context, err := client.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	var svids []map[string]any
	for _, svid := range x509Context.SVIDs {
		described, err := describe(svid, x509Context.Bundles)
		if err != nil {
			return err
		}
		svids = append(svids, described)
	}
	say(map[string]any{"svids": svids, "default": x509Context.DefaultSVID().ID.String()})
	return nil
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	svid, err := describe(update.DefaultSVID(), update.Bundles)
	if err != nil {
		say(map[string]any{"error": err.Error()})
		return
	}
	say(svid)
}

func (watcher) OnX509ContextWatchError(err error) {
	say(map[string]any{"error": err.Error()})
}

// watch says every update until standard input is closed.
func watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		cancel()
	}()
	if err := client.WatchX509Context(ctx, watcher{}); ctx.Err() == nil {
		return err
	}
	return nil
}

// jwt fetches a token and validates it twice: by the Workload API, and locally against the JWT bundles.
func jwt(ctx context.Context, audience string) error {
	ctx, cancel := within(ctx)
	defer cancel()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	validated, err := client.ValidateJWTSVID(ctx, svid.Marshal(), audience)
	if err != nil {
		return err
	}
	set, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	local, err := jwtsvid.ParseAndValidate(svid.Marshal(), set, []string{audience})
	if err != nil {
		return err
	}
	_, wrong := client.ValidateJWTSVID(ctx, svid.Marshal(), "somebody-else")
	say(map[string]any{
		"id":        svid.ID.String(),
		"validated": validated.ID.String(),
		"local":     local.ID.String(),
		"audience":  local.Audience,
		"refused":   wrong != nil,
	})
	return nil
}

func bundles(ctx context.Context) error {
	ctx, cancel := within(ctx)
	defer cancel()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	x509Set, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	jwtSet, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	say(map[string]any{"x509": x509Domains(x509Set), "jwt": jwtDomains(jwtSet)})
	return nil
}

func x509Domains(set *x509bundle.Set) map[string]int {
	domains := map[string]int{}
	for _, bundle := range set.Bundles() {
		domains[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return domains
}

func jwtDomains(set *jwtbundle.Set) map[string]int {
	domains := map[string]int{}
	for _, bundle := range set.Bundles() {
		domains[bundle.TrustDomain().Name()] = len(bundle.JWTAuthorities())
	}
	return domains
}

// serve answers one line to each peer that is `wanted`, and says who came, until standard input is closed.
func serve(ctx context.Context, wanted spiffeid.ID) error {
	started, cancel := within(ctx)
	defer cancel()
	source, err := workloadapi.NewX509Source(started)
	if err != nil {
		return err
	}
	defer source.Close()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listener := tls.NewListener(plain, tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(wanted)))
	defer listener.Close()
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		os.Exit(0)
	}()
	say(map[string]any{"port": plain.Addr().(*net.TCPAddr).Port})
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		answer(connection.(*tls.Conn))
	}
}

func answer(connection *tls.Conn) {
	defer connection.Close()
	if err := connection.Handshake(); err != nil {
		say(map[string]any{"refused": err.Error()})
		return
	}
	peer, err := peerOf(connection.ConnectionState().PeerCertificates)
	if err != nil {
		say(map[string]any{"refused": err.Error()})
		return
	}
	say(map[string]any{"peer": peer})
	fmt.Fprintf(connection, "hello %s\n", peer)
}

func peerOf(certificates []*x509.Certificate) (string, error) {
	id, err := x509svid.IDFromCert(certificates[0])
	return id.String(), err
}

func dial(ctx context.Context, address string, wanted spiffeid.ID) error {
	ctx, cancel := within(ctx)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	connection, err := spiffetls.DialWithMode(ctx, "tcp", address,
		spiffetls.MTLSClientWithSource(tlsconfig.AuthorizeID(wanted), source))
	if err != nil {
		return err
	}
	defer connection.Close()
	heard, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	peer, err := spiffetls.PeerIDFromConn(connection)
	if err != nil {
		return err
	}
	say(map[string]any{"peer": peer.String(), "heard": heard})
	return nil
}
