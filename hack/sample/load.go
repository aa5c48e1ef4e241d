package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	requestTimeout = 5 * time.Second
	// maxOpen bounds the requests that wait for an answer at one time. One that
	// cannot be sent within the bound counts as failed, so that a server that
	// hangs neither slows the rate down unnoticed nor eats the machine.
	maxOpen = 2000
)

// totals is what the run prints, as JSON.
type totals struct {
	Requests   uint64            `json:"requests"`
	Failed     uint64            `json:"failed"` // no answer: transport error or timeout
	Bad        uint64            `json:"bad"`    // answered with 5xx
	ByVersion  map[string]uint64 `json:"by_version"`
	FirstBadAt string            `json:"first_bad_at,omitempty"` // failed or bad
	LastBadAt  string            `json:"last_bad_at,omitempty"`
	FirstError string            `json:"first_error,omitempty"`
}

type counter struct {
	mu     sync.Mutex
	totals totals
}

// record counts one request. A version is counted with its bad answers too.
func (c *counter) record(version string, code int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.totals
	t.Requests++
	bad := false
	if err != nil {
		t.Failed++
		bad = true
		if t.FirstError == "" {
			t.FirstError = err.Error()
		}
	} else {
		t.ByVersion[version]++
		if code >= 500 {
			t.Bad++
			bad = true
		}
	}
	if bad {
		now := time.Now().UTC().Format(time.RFC3339Nano)
		if t.FirstBadAt == "" {
			t.FirstBadAt = now
		}
		t.LastBadAt = now
	}
}

func (c *counter) snapshot() totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.totals
	t.ByVersion = maps.Clone(t.ByVersion)
	return t
}

func load(args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	target := flags.String("url", "", "where the requests go (required)")
	rps := flags.Float64("rps", 50, "requests each second")
	duration := flags.Duration("duration", 10*time.Second, "how long")
	connections := flags.String("connections", "new", "new (one for each request, so that each is balanced) or keep")
	host := flags.String("host", "", "Host header, where it differs from the URL")
	out := flags.String("out", "", "write the totals to this file too")
	progress := flags.Bool("progress", false, "print the running totals as a JSON line every second")
	flags.Parse(args) //nolint:errcheck
	if parsed, err := url.Parse(*target); err != nil || parsed.Host == "" {
		return fmt.Errorf("--url %q is not a URL", *target)
	}
	if !(*rps > 0 && *rps <= 10000) {
		return fmt.Errorf("--rps %v is not within 0 and 10000", *rps)
	}
	if *duration <= 0 || *duration > 24*time.Hour {
		return fmt.Errorf("--duration %v is not within 0 and 24h", *duration)
	}
	if *connections != "new" && *connections != "keep" {
		return fmt.Errorf("--connections %q is neither new nor keep", *connections)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	client := &http.Client{
		Timeout: requestTimeout,
		// No proxy: the target is in the cluster's own network.
		Transport: &http.Transport{DisableKeepAlives: *connections == "new", MaxIdleConnsPerHost: 100},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c := &counter{totals: totals{ByVersion: map[string]uint64{}}}
	if *progress {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		go func() {
			for range ticker.C {
				json.NewEncoder(os.Stdout).Encode(c.snapshot()) //nolint:errcheck
			}
		}()
	}
	run(ctx, c, *rps, *duration, func() { c.record(request(client, *target, *host)) })

	line, err := json.Marshal(c.snapshot())
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err := os.Stdout.Write(line); err != nil {
		return err
	}
	if *out != "" {
		return os.WriteFile(*out, line, 0o644)
	}
	return nil
}

// run calls send at a constant rate, each in a goroutine of its own, and
// returns when all that were started have ended. When it falls behind the
// clock (a busy machine) it catches up: the count for a time is fixed.
func run(ctx context.Context, c *counter, rps float64, duration time.Duration, send func()) {
	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, maxOpen)
	count := uint64(max(1, rps*duration.Seconds()+0.5))
	start := time.Now()
	for i := range count {
		due := start.Add(time.Duration(float64(i) / rps * float64(time.Second)))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			c.record("", 0, fmt.Errorf("%d requests wait for an answer already", maxOpen))
			continue
		}
		open.Go(func() {
			defer func() { <-slots }()
			send()
		})
	}
}

// request sends one request; the first line of the answer is the version.
func request(client *http.Client, target, host string) (version string, code int, err error) {
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return "", 0, err
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", 0, err
	}
	version, _, _ = strings.Cut(string(body), "\n")
	return version, resp.StatusCode, nil
}
