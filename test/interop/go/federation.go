package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// fetchBundle asks a bundle endpoint (https_spiffe) as any federated trust domain would, beginning with the bundle in a file.
func fetchBundle(ctx context.Context, url string, endpoint spiffeid.ID, file string) error {
	ctx, cancel := within(ctx)
	defer cancel()
	first, err := spiffebundle.Load(endpoint.TrustDomain(), file)
	if err != nil {
		return err
	}
	found, err := federation.FetchBundle(ctx, endpoint.TrustDomain(), url, federation.WithSPIFFEAuth(first, endpoint))
	if err != nil {
		say(map[string]any{"refused": err.Error()})
		return nil
	}
	sequence, _ := found.SequenceNumber()
	hint, _ := found.RefreshHint()
	say(map[string]any{
		"trustDomain": found.TrustDomain().Name(),
		"x509":        len(found.X509Authorities()),
		"jwt":         len(found.JWTAuthorities()),
		"sequence":    sequence,
		"hint":        hint.Seconds(),
	})
	return nil
}

// serveBundle publishes the bundle of the Workload API's trust domain with its own SVID, until standard input closes.
func serveBundle(ctx context.Context) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	roots, err := source.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	if err != nil {
		return err
	}
	bundle := spiffebundle.FromX509Bundle(roots)
	bundle.SetSequenceNumber(1<<63 + 1)
	handler, err := federation.NewHandler(svid.ID.TrustDomain(), bundle)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, TLSConfig: &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: tlsconfig.GetCertificate(source),
	}}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	document, err := bundle.Marshal()
	if err != nil {
		return err
	}
	say(map[string]any{"url": "https://" + listener.Addr().String() + "/", "bundle": string(document)})
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return server.Close()
}
