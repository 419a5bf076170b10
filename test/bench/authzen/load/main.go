// A load generator for HTTP/1.1 that costs little: one request over and over on connections that stay open, one at a time on each, with nothing
// parsed of an answer but where it ends and whether it holds what it must. One job a line on stdin, one result a line on stdout, both JSON.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

type job struct {
	Network      string       `json:"network"`
	Address      string       `json:"address"`
	TLS          *credentials `json:"tls"`
	Request      string       `json:"request"`
	Must         string       `json:"must"`
	Connections  int          `json:"connections"`
	Milliseconds int          `json:"milliseconds"`
	// No fewer than these, however long they take.
	Requests int `json:"requests"`
	// Of the server, whose processor time is taken.
	Pid int `json:"pid"`
}

type credentials struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	Authorities string `json:"authorities"`
}

type result struct {
	Requests  int     `json:"requests"`
	Seconds   float64 `json:"seconds"`
	CPUMicros float64 `json:"cpuMicros"`
}

func main() {
	jobs := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := jobs.ReadBytes('\n')
		if err != nil {
			return
		}
		var todo job
		if err := json.Unmarshal(line, &todo); err != nil {
			fail(err)
		}
		done, err := run(todo)
		if err != nil {
			fail(err)
		}
		answer, err := json.Marshal(done)
		if err != nil {
			fail(err)
		}
		fmt.Println(string(answer))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func run(todo job) (result, error) {
	connections := make([]net.Conn, todo.Connections)
	for index := range connections {
		connection, err := open(todo)
		if err != nil {
			return result{}, err
		}
		defer connection.Close()
		connections[index] = connection
	}
	before, err := processorTime(todo.Pid)
	if err != nil {
		return result{}, err
	}
	begun := time.Now()
	until := begun.Add(time.Duration(todo.Milliseconds) * time.Millisecond)
	type count struct {
		requests int
		err      error
	}
	counts := make(chan count, len(connections))
	for _, connection := range connections {
		go func() {
			requests, err := ask(connection, []byte(todo.Request), []byte(todo.Must), until, todo.Requests/todo.Connections)
			counts <- count{requests, err}
		}()
	}
	total := 0
	for range connections {
		each := <-counts
		if each.err != nil {
			return result{}, each.err
		}
		total += each.requests
	}
	seconds := time.Since(begun).Seconds()
	after, err := processorTime(todo.Pid)
	if err != nil {
		return result{}, err
	}
	return result{Requests: total, Seconds: seconds, CPUMicros: (after - before) / float64(total)}, nil
}

func open(todo job) (net.Conn, error) {
	connection, err := net.Dial(todo.Network, todo.Address)
	if err != nil || todo.TLS == nil {
		return connection, err
	}
	certificate, err := tls.X509KeyPair([]byte(todo.TLS.Certificate), []byte(todo.TLS.Key))
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM([]byte(todo.TLS.Authorities))
	secured := tls.Client(connection, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"http/1.1"},
		// A SPIFFE ID is no host name: the chain is verified, the name is not.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: authorities})
			return err
		},
	})
	return secured, secured.Handshake()
}

// Asks until the time is over and `least` answers are there. An answer has a Content-Length.
func ask(connection net.Conn, request, must []byte, until time.Time, least int) (int, error) {
	buffer := make([]byte, 16*1024)
	for requests := 0; ; requests++ {
		if requests >= least && time.Now().After(until) {
			return requests, nil
		}
		if _, err := connection.Write(request); err != nil {
			return requests, err
		}
		received := 0
		for {
			read, err := connection.Read(buffer[received:])
			if err != nil {
				return requests, err
			}
			received += read
			if isWhole(buffer[:received]) {
				break
			}
		}
		if !bytes.Contains(buffer[:received], must) {
			return requests, fmt.Errorf("not the answer that was wanted: %s", buffer[:received])
		}
	}
}

var (
	length = []byte("\r\ncontent-length: ")
	end    = []byte("\r\n\r\n")
)

func isWhole(received []byte) bool {
	head := bytes.Index(received, end)
	if head == -1 {
		return false
	}
	at := indexFold(received[:head], length)
	if at == -1 {
		return false
	}
	digits := received[at+len(length) : head]
	if line := bytes.IndexByte(digits, '\r'); line != -1 {
		digits = digits[:line]
	}
	size, err := strconv.Atoi(string(digits))
	return err == nil && len(received) >= head+len(end)+size
}

// `sought` is in lower case.
func indexFold(text, sought []byte) int {
	for at := 0; at+len(sought) <= len(text); at++ {
		if text[at] == '\r' && bytes.EqualFold(text[at:at+len(sought)], sought) {
			return at
		}
	}
	return -1
}

// User and system time of all threads that the process has had, in microseconds; the kernel gives ticks of 10 ms.
func processorTime(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return float64(user+system) * 10_000, err
}
