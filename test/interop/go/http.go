package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// asked is one HTTP request that the tests ask for.
type asked struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	File    string            `json:"file"`
	Chunked bool              `json:"chunked"`
	Stream  bool              `json:"stream"`
}

type answered struct {
	Status  int         `json:"status"`
	Headers [][2]string `json:"headers"`
	Body    []byte      `json:"body"`
	Failure *string     `json:"failure"`
}

// newClient is net/http's own, with mutual TLS to `server` where one is named. Redirects are for the tests to see.
func newClient(ctx context.Context, server string) (*http.Client, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	if server != "" {
		started, cancel := within(ctx)
		defer cancel()
		source, err := workloadapi.NewX509Source(started)
		if err != nil {
			return nil, err
		}
		wanted := tlsconfig.AuthorizeID(spiffeid.RequireFromString(server))
		transport.TLSClientConfig = tlsconfig.MTLSClientConfig(source, source, wanted)
	}
	unfollowed := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Jar: jar, Transport: transport, CheckRedirect: unfollowed}, nil
}

// call makes the requests of a JSON document on standard input, one after the other.
func call(ctx context.Context, server string) error {
	var all []asked
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		return err
	}
	client, err := newClient(ctx, server)
	if err != nil {
		return err
	}
	answers := []answered{}
	for _, one := range all {
		answer, err := ask(ctx, client, one)
		if err != nil {
			return err
		}
		if answer != nil {
			answers = append(answers, *answer)
		}
	}
	line, err := json.Marshal(answers)
	fmt.Println(string(line))
	return err
}

func ask(ctx context.Context, client *http.Client, one asked) (*answered, error) {
	request, err := http.NewRequestWithContext(ctx, one.Method, one.URL, nil)
	if err != nil {
		return nil, err
	}
	if one.File != "" {
		file, err := os.Open(one.File)
		if err != nil {
			return nil, err
		}
		request.Body = file
		if !one.Chunked {
			about, err := file.Stat()
			if err != nil {
				return nil, err
			}
			request.ContentLength = about.Size()
		}
	}
	for name, value := range one.Headers {
		request.Header.Set(name, value)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if one.Stream {
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			fmt.Println(lines.Text())
		}
		return nil, lines.Err()
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	answer := &answered{Status: response.StatusCode, Body: body}
	for name, values := range response.Header {
		for _, value := range values {
			answer.Headers = append(answer.Headers, [2]string{name, value})
		}
	}
	if response.StatusCode >= 400 {
		answer.Failure = &response.Status
	}
	return answer, nil
}

// load calls the URLs in turn from eight goroutines until standard input is closed, then says how often each had which end.
func load(ctx context.Context, server string, urls []string) error {
	client, err := newClient(ctx, server)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(over)
	}()
	var mutex sync.Mutex
	var all sync.WaitGroup
	ends := map[string]int{}
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for index := 0; ; index++ {
				select {
				case <-over:
					return
				default:
				}
				end := endOf(ctx, client, urls[index%len(urls)])
				mutex.Lock()
				ends[end]++
				if ends[end] == 1 {
					say(map[string]any{"first": end})
				}
				mutex.Unlock()
			}
		}()
	}
	all.Wait()
	say(map[string]any{"ends": ends})
	return nil
}

func endOf(ctx context.Context, client *http.Client, url string) string {
	answer, err := ask(ctx, client, asked{Method: http.MethodGet, URL: url})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", answer.Status, url)
}
