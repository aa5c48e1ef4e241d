package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"regexp"
	"sort"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// targetGroup is an entry of Prometheus' file_sd format.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// runPodTargets keeps a file_sd file with the pods that ask to be scraped
// (annotation prometheus.io/scrape). Debian builds Prometheus without its own
// discovery of pods.
func runPodTargets() int {
	flags := flag.NewFlagSet("pod-targets", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server (required)")
	out := flags.String("out", "", "the file to write (required)")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return 2
	}
	if *kubeconfig == "" || *out == "" || flags.NArg() != 0 {
		fmt.Fprintln(os.Stderr, "pod-targets: --kubeconfig FILE and --out FILE are required, and no other arguments are taken")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := podTargets(ctx, *kubeconfig, *out); err != nil {
		fmt.Fprintln(os.Stderr, "pod-targets:", err)
		return 1
	}
	return 0
}

func podTargets(ctx context.Context, kubeconfig, out string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	pods := informers.NewSharedInformerFactory(client, 0).Core().V1().Pods()
	changed := make(chan struct{}, 1)
	signalChange := func() {
		select {
		case changed <- struct{}{}:
		default: // one is waiting already
		}
	}
	_, err = pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { signalChange() },
		UpdateFunc: func(any, any) { signalChange() },
		DeleteFunc: func(any) { signalChange() },
	})
	if err != nil {
		return err
	}
	go pods.Informer().Run(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), pods.Informer().HasSynced) {
		return nil // told to stop
	}
	signalChange()
	var last []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		time.Sleep(100 * time.Millisecond) // changes come in flocks
		list, err := pods.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		content, err := json.Marshal(groups(list))
		if err != nil {
			return err
		}
		if bytes.Equal(content, last) {
			continue
		}
		// Renamed into place: Prometheus never reads half a file.
		if err := os.WriteFile(out+".tmp", content, 0o644); err != nil {
			return err
		}
		if err := os.Rename(out+".tmp", out); err != nil {
			return err
		}
		last = content
	}
}

var notInLabel = regexp.MustCompile(`[^a-zA-Z0-9_]`)

func groups(pods []*v1.Pod) []targetGroup {
	found := []targetGroup{}
	for _, pod := range pods {
		if pod.Annotations["prometheus.io/scrape"] != "true" || pod.Status.PodIP == "" ||
			pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
			continue
		}
		port := pod.Annotations["prometheus.io/port"]
		if port == "" {
			port = "80"
		}
		group := targetGroup{Targets: []string{net.JoinHostPort(pod.Status.PodIP, port)}, Labels: map[string]string{}}
		for name, value := range pod.Labels {
			group.Labels[notInLabel.ReplaceAllString(name, "_")] = value
		}
		group.Labels["namespace"] = pod.Namespace
		group.Labels["pod"] = pod.Name
		if path := pod.Annotations["prometheus.io/path"]; path != "" {
			group.Labels["__metrics_path__"] = path
		}
		found = append(found, group)
	}
	// In a fixed order, so that an unchanged list is an unchanged file.
	sort.Slice(found, func(i, j int) bool {
		a, b := found[i].Labels, found[j].Labels
		return a["namespace"]+"/"+a["pod"] < b["namespace"]+"/"+b["pod"]
	})
	return found
}
