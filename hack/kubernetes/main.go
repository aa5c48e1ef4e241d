// One program that holds every component of a Kubernetes cluster, for tests.
//
// The components are imported as libraries and built from Go modules, so a
// machine that reaches nothing but a module proxy can run a real cluster. The
// first argument (or the name that the program is called by) says which
// component to be.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// components maps a name to what runs it; each reads os.Args[1:].
var components = map[string]func() int{
	"etcd":                    runEtcd,
	"keygen":                  runKeygen,
	"kubectl":                 runKubectl,
	"pod-targets":             runPodTargets,
	"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() int { return cli.Run(kcm.NewControllerManagerCommand()) },
	"kube-scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
	"kubelet":                 func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) },
	"kube-proxy":              func() int { return cli.Run(proxy.NewProxyCommand()) },
}

func main() {
	// Called through a link that has a component's name: be that component.
	if run, ok := components[filepath.Base(os.Args[0])]; ok {
		os.Exit(run())
	}
	if len(os.Args) > 1 {
		if run, ok := components[os.Args[1]]; ok {
			// The components find their own name in os.Args[0], as usual.
			os.Args = os.Args[1:]
			os.Exit(run())
		}
	}
	fmt.Fprintln(os.Stderr, "usage: kubernetes etcd|keygen|kubectl|pod-targets|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kube-proxy [ARG]...")
	os.Exit(2)
}

// runKubectl is kubectl's own main; plugins (kubectl-NAME on PATH) work.
func runKubectl() int {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) //nolint:errcheck
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints, and exits with kubectl's code
	}
	return 0
}

// runEtcd serves one etcd member on loopback until it is told to stop.
func runEtcd() int {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	dir := flags.String("data-dir", "", "folder of the data (required)")
	port := flags.Int("client-port", 2379, "port for clients, on 127.0.0.1")
	fsync := flags.Bool("fsync", false, "flush every write to disk; without it only a crash of the machine loses data")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return 2
	}
	if *dir == "" || flags.NArg() != 0 {
		fmt.Fprintln(os.Stderr, "etcd: --data-dir DIR is required, and no other arguments are taken")
		return 2
	}

	cfg := embed.NewConfig()
	cfg.Dir = *dir
	cfg.LogLevel = "warn"
	cfg.UnsafeNoFsync = !*fsync
	client := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", *port)}
	cfg.ListenClientUrls = []url.URL{client}
	cfg.AdvertiseClientUrls = []url.URL{client}
	// There is no peer: any free port will do.
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd: cannot start:", err)
		return 1
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return 0
	case <-server.Server.StopNotify():
		fmt.Fprintln(os.Stderr, "etcd: the server stopped by itself")
		return 1
	case err := <-server.Err():
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
}
