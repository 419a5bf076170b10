// Load for the relay's bench: light enough that what is measured is the proxy between the two. `load upstream` answers, every other
// mode calls; each prints one line of JSON.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	address     = flag.String("address", "", "host:port to call")
	certificate = flag.String("cert", "", "PEM of the client's certificate: calls go over TLS 1.3")
	key         = flag.String("key", "", "PEM of its key")
	connections = flag.Int("connections", 16, "kept alive")
	rate        = flag.Int("rate", 1000, "requests a second")
	seconds     = flag.Float64("seconds", 1, "")
	size        = flag.Int64("bytes", 1<<30, "to stream")
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("load upstream|rate|highest|connect|download|upload|idle [flags]")
	}
	modes := map[string]func() (any, error){
		"upstream": upstream, "rate": atFixedRate, "highest": atHighestRate, "connect": newConnections,
		"download": download, "upload": upload, "idle": idle,
	}
	mode, found := modes[os.Args[1]]
	if !found {
		log.Fatalf("no such mode: %s", os.Args[1])
	}
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		log.Fatal(err)
	}
	answer, err := mode()
	if err != nil {
		log.Fatal(err)
	}
	say(answer)
}

func say(value any) {
	if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
		log.Fatal(err)
	}
}

const path = "/v1/invoices"

// A client's connection: one request at a time, kept alive.
type connection struct {
	net.Conn
	reader *bufio.Reader
}

func connect() (*connection, error) {
	plain, err := net.Dial("tcp", *address)
	if err != nil {
		return nil, err
	}
	if *certificate == "" {
		return &connection{plain, bufio.NewReader(plain)}, nil
	}
	pair, err := clientPair()
	if err != nil {
		return nil, err
	}
	// Whom it talks to is not what is measured here: the server is on this machine, started by the same bench.
	secure := tls.Client(plain, &tls.Config{
		Certificates: []tls.Certificate{*pair}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
	})
	if err := secure.Handshake(); err != nil {
		plain.Close()
		return nil, err
	}
	return &connection{secure, bufio.NewReader(secure)}, nil
}

var clientPair = sync.OnceValues(func() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	return &pair, err
})

func (c *connection) head(method, target string, length int64) []byte {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: load\r\nAccept: application/json\r\n", method, target, *address)
	if length >= 0 {
		head += fmt.Sprintf("Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", length)
	}
	return []byte(head + "\r\n")
}

// Reads one answer, throws its body away, and fails unless it is a 200 of a known or chunked length.
func (c *connection) answer() (int64, error) {
	status, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answered %q", status)
	}
	length := int64(-1)
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("an answer without Content-Length")
	}
	for left := length; left > 0; {
		part, err := c.reader.Discard(int(min(left, 1<<20)))
		left -= int64(part)
		if err != nil {
			return 0, err
		}
	}
	return length, nil
}

func (c *connection) call(head []byte) error {
	if _, err := c.Write(head); err != nil {
		return err
	}
	_, err := c.answer()
	return err
}

// Each caller has a connection of its own; they start when all are open.
func callers(count int, run func(*connection) error) error {
	var failed error
	var once sync.Once
	var all sync.WaitGroup
	open := make([]*connection, count)
	for index := range open {
		one, err := connect()
		if err != nil {
			return err
		}
		defer one.Close()
		open[index] = one
	}
	for _, one := range open {
		all.Go(func() {
			if err := run(one); err != nil {
				once.Do(func() { failed = err })
			}
		})
	}
	all.Wait()
	return failed
}

// Open loop: a call is due at its time whether or not earlier ones have ended, and its latency counts from when it was let go. The clock starts
// when all connections are open: what it costs to open one is another mode's business.
func atFixedRate() (any, error) {
	total := int(float64(*rate) * *seconds)
	warm := total / 4
	type started struct {
		at     time.Time
		counts bool
	}
	due := make(chan started, total+warm)
	letGo := func() {
		defer close(due)
		begin := time.Now()
		for sent := 0; sent < total+warm; {
			now := time.Now()
			for ; sent < total+warm && now.Sub(begin) >= time.Duration(sent)*time.Second/time.Duration(*rate); sent++ {
				due <- started{now, sent >= warm}
			}
			// Go's own timers round up to a millisecond.
			wait := syscall.NsecToTimespec(int64(time.Duration(sent)*time.Second/time.Duration(*rate) - time.Since(begin)))
			if wait.Nano() > 0 {
				_ = syscall.Nanosleep(&wait, nil)
			}
		}
	}
	var open sync.Once
	var lock sync.Mutex
	latencies := make([]time.Duration, 0, total)
	err := callers(*connections, func(c *connection) error {
		open.Do(func() { go letGo() })
		head := c.head("GET", path, -1)
		for next := range due {
			if err := c.call(head); err != nil {
				return err
			}
			if took := time.Since(next.at); next.counts {
				lock.Lock()
				latencies = append(latencies, took)
				lock.Unlock()
			}
		}
		return nil
	})
	if err != nil || len(latencies) == 0 {
		return nil, errors.Join(err, errors.New("no call ended"))
	}
	slices.Sort(latencies)
	at := func(share float64) float64 { return latencies[int(float64(len(latencies))*share)].Seconds() * 1000 }
	return map[string]any{"calls": len(latencies) + warm, "p50": at(0.5), "p90": at(0.9), "p99": at(0.99)}, nil
}

func atHighestRate() (any, error) {
	var done atomic.Int64
	var begin time.Time
	var once sync.Once
	err := callers(*connections, func(c *connection) error {
		once.Do(func() { begin = time.Now() })
		head := c.head("GET", path, -1)
		for end := time.Now().Add(time.Duration(*seconds * float64(time.Second))); time.Now().Before(end); done.Add(1) {
			if err := c.call(head); err != nil {
				return err
			}
		}
		return nil
	})
	return map[string]any{"calls": done.Load(), "rate": float64(done.Load()) / time.Since(begin).Seconds()}, err
}

// A handshake, one call, and the end, over and over.
func newConnections() (any, error) {
	var done atomic.Int64
	var all sync.WaitGroup
	var failed atomic.Value
	begin := time.Now()
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	for range *connections {
		all.Go(func() {
			for ; time.Now().Before(end); done.Add(1) {
				c, err := connect()
				if err == nil {
					err = c.call(c.head("GET", path, -1))
					c.Close()
				}
				if err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	all.Wait()
	err, _ := failed.Load().(error)
	return map[string]any{"calls": done.Load(), "rate": float64(done.Load()) / time.Since(begin).Seconds()}, err
}

func download() (any, error) {
	begin := time.Now()
	var read int64
	err := callers(1, func(c *connection) (err error) {
		if _, err = c.Write(c.head("GET", fmt.Sprintf("/v1/bytes/%d", *size), -1)); err != nil {
			return err
		}
		read, err = c.answer()
		return err
	})
	return streamed(read, begin), err
}

func upload() (any, error) {
	begin := time.Now()
	err := callers(1, func(c *connection) error {
		if _, err := c.Write(c.head("POST", "/v1/sink", *size)); err != nil {
			return err
		}
		if _, err := io.CopyN(c.Conn, zeros{}, *size); err != nil {
			return err
		}
		_, err := c.answer()
		return err
	})
	return streamed(*size, begin), err
}

func streamed(bytes int64, begin time.Time) map[string]any {
	return map[string]any{"bytes": bytes, "seconds": time.Since(begin).Seconds()}
}

type zeros struct{}

func (zeros) Read(into []byte) (int, error) { return len(into), nil }

// Opens connections, makes one call on each, says so, and holds them until its input ends.
func idle() (any, error) {
	open := make([]*connection, 0, *connections)
	for range *connections {
		c, err := connect()
		if err != nil {
			return nil, fmt.Errorf("after %d connections: %w", len(open), err)
		}
		if err := c.call(c.head("GET", path, -1)); err != nil {
			return nil, fmt.Errorf("after %d connections: %w", len(open), err)
		}
		open = append(open, c)
	}
	say(map[string]any{"open": len(open)})
	_, err := io.Copy(io.Discard, os.Stdin)
	for _, c := range open {
		c.Close()
	}
	return map[string]any{"closed": len(open)}, err
}

// The service: a small JSON body, a stream of any length, a sink. Prints its port, ends with its input.
func upstream() (any, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	say(map[string]any{"port": listener.Addr().(*net.TCPAddr).Port})
	go func() {
		for {
			accepted, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(accepted)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return map[string]any{"ended": true}, err
}

func serve(accepted net.Conn) {
	defer accepted.Close()
	body := invoices()
	small := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	reader := bufio.NewReaderSize(accepted, 64<<10)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		length := int64(0)
		for {
			header, err := reader.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(header) <= 2 {
				break
			}
			if name, value, _ := bytes.Cut(header, []byte(":")); bytes.EqualFold(name, []byte("content-length")) {
				length, _ = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
			}
		}
		if _, err := io.CopyN(io.Discard, reader, length); err != nil {
			return
		}
		if _, rest, streams := strings.Cut(line, " /v1/bytes/"); streams {
			size, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			fmt.Fprintf(accepted, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", size)
			_, err = io.CopyN(accepted, zeros{}, size)
		} else {
			_, err = accepted.Write(small)
		}
		if err != nil {
			return
		}
	}
}

func invoices() []byte {
	type invoice struct {
		ID     int `json:"id"`
		Amount int `json:"amount"`
	}
	all := make([]invoice, 16)
	for id := range all {
		all[id] = invoice{id, 100 * id}
	}
	body, _ := json.Marshal(map[string]any{"invoices": all})
	return body
}
