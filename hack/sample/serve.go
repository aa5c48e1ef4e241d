package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// buckets are the upper bounds of the latency histogram, in seconds.
var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// settings is how the server behaves. They come from the environment and can
// be changed while it runs, by POST /control?error_rate=0.2&…
type settings struct {
	version   string
	errorRate float64       // ERROR_RATE: share of answers that are 500
	latency   time.Duration // LATENCY_MS: added to every answer
	metrics   string        // METRICS: on, openmetrics, off, html, nan, huge, error, slow
	ready     string        // READY: true, false, after:DURATION, until:DURATION
}

// set changes one setting by its name in lower case.
func (s *settings) set(name, value string) error {
	var err error
	switch name {
	case "version":
		s.version = value
	case "error_rate":
		rate, parseErr := strconv.ParseFloat(value, 64)
		if parseErr != nil || !(rate >= 0 && rate <= 1) {
			return fmt.Errorf("error_rate: %q is not a number from 0 to 1", value)
		}
		s.errorRate = rate
	case "latency_ms":
		ms, parseErr := strconv.ParseFloat(value, 64)
		if parseErr != nil || !(ms >= 0 && ms < 1e7) {
			return fmt.Errorf("latency_ms: %q is not a number of milliseconds", value)
		}
		s.latency = time.Duration(ms * float64(time.Millisecond))
	case "metrics":
		switch value {
		case "on", "openmetrics", "off", "html", "nan", "huge", "error", "slow":
			s.metrics = value
		default:
			return fmt.Errorf("metrics: %q is none of on, openmetrics, off, html, nan, huge, error, slow", value)
		}
	case "ready":
		if _, err = readyAt(value, 0); err == nil {
			s.ready = value
		}
	default:
		return fmt.Errorf("unknown setting %q; known are version, error_rate, latency_ms, metrics, ready", name)
	}
	return err
}

// readyAt says whether a server that has run for age is ready under the rule.
func readyAt(rule string, age time.Duration) (bool, error) {
	word, rest, timed := strings.Cut(rule, ":")
	if !timed {
		if word == "true" || word == "false" {
			return word == "true", nil
		}
	} else if limit, err := time.ParseDuration(rest); err == nil && (word == "after" || word == "until") {
		return (age >= limit) == (word == "after"), nil
	}
	return false, fmt.Errorf("ready: %q is none of true, false, after:DURATION, until:DURATION", rule)
}

type server struct {
	started  time.Time
	stopping atomic.Bool

	mu       sync.Mutex
	settings settings
	codes    map[int]uint64
	counts   []uint64 // one for each bucket, not cumulated
	sum      float64
	total    uint64
}

func (s *server) current() settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

func (s *server) count(code int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code]++
	s.total++
	s.sum += took.Seconds()
	for i, bound := range buckets {
		if took.Seconds() <= bound {
			s.counts[i]++
			break
		}
	}
}

func (s *server) root(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	now := s.current()
	if now.latency > 0 {
		select {
		case <-time.After(now.latency):
		case <-r.Context().Done():
		}
	}
	code := http.StatusOK
	if rand.Float64() < now.errorRate {
		code = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Version", now.version)
	w.WriteHeader(code)
	fmt.Fprintln(w, now.version)
	s.count(code, time.Since(start))
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	ready, _ := readyAt(s.current().ready, time.Since(s.started))
	if !ready || s.stopping.Load() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (s *server) control(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.settings
	for name, values := range r.URL.Query() {
		if err := next.set(name, values[len(values)-1]); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	s.settings = next
	fmt.Fprintf(w, "%+v\n", next)
}

func (s *server) metrics(w http.ResponseWriter, r *http.Request) {
	mode := s.current().metrics
	switch mode {
	case "off":
		http.NotFound(w, r)
		return
	case "error":
		http.Error(w, "metrics are broken", http.StatusInternalServerError)
		return
	case "html":
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!DOCTYPE html><html><body><h1>Please sign in</h1></body></html>\n")
		return
	case "slow":
		select {
		case <-time.After(30 * time.Second):
		case <-r.Context().Done():
			return
		}
	}
	var b bytes.Buffer
	s.writeMetrics(&b, mode == "nan")
	if mode == "huge" {
		for i := 0; b.Len() < 10<<20; i++ {
			fmt.Fprintf(&b, "padding_total{series=\"%08d\",filler=\"%s\"} 1\n", i, strings.Repeat("x", 100))
		}
	}
	kind := "text/plain; version=0.0.4; charset=utf-8"
	if mode == "openmetrics" && strings.Contains(r.Header.Get("Accept"), "application/openmetrics-text") {
		kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
		page := bytes.Replace(b.Bytes(), []byte("# TYPE http_requests_total"), []byte("# TYPE http_requests"), 1)
		page = bytes.Replace(page, []byte("# HELP http_requests_total"), []byte("# HELP http_requests"), 1)
		b = *bytes.NewBuffer(append(page, "# EOF\n"...))
	}
	w.Header().Set("Content-Type", kind)
	w.Write(b.Bytes()) //nolint:errcheck
}

// secureMetrics serves the page over TLS instead, with METRICS_CERT and
// METRICS_KEY (PEM), on METRICS_PORT, and only for whoever knows METRICS_TOKEN.
func (s *server) secureMetrics() (*http.Server, error) {
	pair, err := tls.X509KeyPair([]byte(env("METRICS_CERT", "")), []byte(env("METRICS_KEY", "")))
	if err != nil {
		return nil, fmt.Errorf("METRICS_CERT and METRICS_KEY: %w", err)
	}
	want := "Bearer " + env("METRICS_TOKEN", "")
	mux := http.NewServeMux()
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != want {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		s.metrics(w, r)
	})
	return &http.Server{
		Addr:              ":" + env("METRICS_PORT", "8443"),
		Handler:           mux,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}},
		ReadHeaderTimeout: 10 * time.Second,
	}, nil
}

// writeMetrics writes the text format. A code has no series before its first
// answer, as in most client libraries: what reads it must take that as zero.
func (s *server) writeMetrics(b *bytes.Buffer, nan bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number := func(v float64) string {
		if nan {
			return "NaN"
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	b.WriteString("# HELP http_requests_total Answers by status code.\n# TYPE http_requests_total counter\n")
	for _, code := range []int{200, 500} {
		if n := s.codes[code]; n > 0 {
			fmt.Fprintf(b, "http_requests_total{code=\"%d\",method=\"GET\"} %s\n", code, number(float64(n)))
		}
	}
	b.WriteString("# HELP http_request_duration_seconds Time to answer.\n# TYPE http_request_duration_seconds histogram\n")
	var below uint64
	for i, bound := range buckets {
		below += s.counts[i]
		fmt.Fprintf(b, "http_request_duration_seconds_bucket{le=\"%s\"} %s\n",
			strconv.FormatFloat(bound, 'g', -1, 64), number(float64(below)))
	}
	fmt.Fprintf(b, "http_request_duration_seconds_bucket{le=\"+Inf\"} %s\n", number(float64(s.total)))
	fmt.Fprintf(b, "http_request_duration_seconds_sum %s\n", number(s.sum))
	fmt.Fprintf(b, "http_request_duration_seconds_count %s\n", number(float64(s.total)))
	fmt.Fprintf(b, "# HELP app_info What runs.\n# TYPE app_info gauge\napp_info{version=%q} 1\n", s.settings.version)
}

func env(name, fallback string) string {
	if value, ok := os.LookupEnv(name); ok && value != "" {
		return value
	}
	return fallback
}

// envDuration reads a duration; 0 when it is not set.
func envDuration(name, fallback string) (time.Duration, error) {
	d, err := time.ParseDuration(env(name, fallback))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

func serve(args []string) error {
	if len(args) > 0 {
		return errors.New("serve takes no arguments; it is set by its environment")
	}
	s := &server{started: time.Now(), codes: map[int]uint64{}, counts: make([]uint64, len(buckets))}
	for _, name := range []string{"VERSION", "ERROR_RATE", "LATENCY_MS", "METRICS", "READY"} {
		fallback := map[string]string{"VERSION": "dev", "ERROR_RATE": "0", "LATENCY_MS": "0", "METRICS": "on", "READY": "true"}[name]
		if err := s.settings.set(strings.ToLower(name), env(name, fallback)); err != nil {
			return err
		}
	}
	linger, err := envDuration("LINGER", "5s")
	if err != nil {
		return err
	}
	if err := scheduleFaults(); err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/", s.root)
	mux.HandleFunc("/healthz", s.health)
	failed := make(chan error, 2)
	if env("METRICS_CERT", "") == "" {
		mux.HandleFunc("/metrics", s.metrics)
	} else {
		secure, err := s.secureMetrics()
		if err != nil {
			return err
		}
		go func() { failed <- secure.ListenAndServeTLS("", "") }()
	}
	mux.HandleFunc("/control", s.control)
	web := &http.Server{Addr: ":" + env("PORT", "8080"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() { failed <- web.ListenAndServe() }()
	fmt.Printf("sample %s serves on %s\n", s.settings.version, web.Addr)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// The endpoint leaves the load balancers only some time after the pod is
	// told to end, so it goes on serving for a while.
	s.stopping.Store(true)
	fmt.Printf("told to end: serving for %s more\n", linger)
	time.Sleep(linger)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := web.Shutdown(ctx); err != nil {
		web.Close() //nolint:errcheck
	}
	return nil
}

// scheduleFaults arranges for what CRASH and OOM ask for.
func scheduleFaults() error {
	switch crash := env("CRASH", ""); crash {
	case "":
	case "start":
		return errors.New("CRASH=start: exiting with an error as asked")
	default:
		after, err := envDuration("CRASH", "")
		if err != nil {
			return err
		}
		time.AfterFunc(after, func() {
			fmt.Fprintf(os.Stderr, "CRASH=%s: exiting with an error as asked\n", crash)
			os.Exit(1)
		})
	}
	if env("OOM", "") != "" {
		after, err := envDuration("OOM", "")
		if err != nil {
			return err
		}
		time.AfterFunc(after, exhaustMemory)
	}
	return nil
}

// hoard keeps what exhaustMemory takes from being collected.
var hoard [][]byte

func exhaustMemory() {
	fmt.Fprintln(os.Stderr, "OOM: taking memory without bound as asked")
	for {
		block := make([]byte, 4<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1 // touched, so that it is really there
		}
		hoard = append(hoard, block)
		time.Sleep(time.Millisecond)
	}
}
