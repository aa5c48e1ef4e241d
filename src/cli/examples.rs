//! The examples at the end of each command's help.
//!
//! A line that begins with two spaces and `belay` is a command; as a kubectl plugin it is shown as
//! `kubectl belay` (see `super::command`).

pub(super) const BELAY: &str = "\
Examples:
  belay install                         # into the cluster, once
  belay init web --write rollout.yaml   # a policy for the Deployment web
  belay release web --image web:1.2     # change it, and follow
  belay status web --watch
  belay explain web                     # why it went as it did

Exit codes: 0 done or promoted, 1 error, 4 rolled back, aborted or superseded, 64 usage,
130 interrupted.
Each command has its own help: belay COMMAND --help";

pub(super) const INSTALL: &str = "\
Examples:
  belay install
  belay install --dry-run > belay.yaml      # to read it, or to keep it in git
  belay install --image mirror/belay:0.1.0 --namespace belay-system
  belay install --brake webhook --dry-run   # for an API server without admission policies

Running it again updates what is there. Installing needs the rights of a cluster administrator;
using Belay does not.";

pub(super) const UNINSTALL: &str = "\
Examples:
  belay uninstall
  belay uninstall --yes --keep-crds

Running releases are ended first: weight 0, canary removed, everything borrowed given back. A change
that was not promoted stays in its Deployment, paused; `kubectl rollout resume` lets it out,
`kubectl rollout undo` takes it back.";

pub(super) const DOCTOR: &str = "\
Examples:
  belay doctor                              # the cluster, and the Rollouts of this namespace
  belay doctor -A
  belay doctor -o json | jq '.checks[] | select(.result != \"ok\")'

Exit code 1 when something is broken, 0 with warnings only.";

pub(super) const INIT: &str = "\
Examples:
  belay init web                            # prints a Rollout with comments
  belay init web --write rollout.yaml
  belay init web --apply                    # creates it at once
  belay init web --strategy blue-green      # one switch of the Service, or of its routes

It reads the Deployment, the Services that select its pods, the routes to those, its autoscaler, and where
its metrics are. Routes are HTTPRoutes and GRPCRoutes of the Gateway API, VirtualServices of Istio, Ingresses
of ingress-nginx and of the AWS load balancer controller, IngressRoutes and TraefikServices, and TrafficSplits
of SMI: they are written down to be split. Where there are several answers, comments say what was left out.";

pub(super) const LINT: &str = "\
Examples:
  belay lint rollout.yaml
  belay lint --replicas 4 deploy/*.yaml
  kustomize build . | belay lint -
  belay lint -o json rollout.yaml

Exit code 0 when clean or with notes only, 1 with errors.";

pub(super) const RELEASE: &str = "\
Examples:
  belay release web --image web=registry.example/web:1.2
  belay release web --image registry.example/web:1.2 --env LOG_LEVEL=debug
  belay release web --image web:1.2 --dry-run      # the difference, and nothing else
  belay release web --image web:1.2 --no-wait      # follow later: belay status web --wait

Any other way of changing the template works as well: kubectl set image, kubectl apply, GitOps.
Exit codes: 0 promoted, or nothing to change; 4 rolled back, aborted or superseded; 1 error, or the
timeout passed; 130 interrupted. After a timeout and after 130 the release goes on.";

pub(super) const STATUS: &str = "\
Examples:
  belay status                              # every Rollout of the namespace
  belay status web --watch
  belay status web --wait --timeout 30m     # exit code 0 promoted, 4 rolled back
  belay status web -o json";

pub(super) const LIST: &str = "\
Examples:
  belay list
  belay list -A
  belay list -o name";

pub(super) const HISTORY: &str = "\
Examples:
  belay history web
  belay history web --limit 3 -o json";

pub(super) const EXPLAIN: &str = "\
Examples:
  belay explain                             # the running or last release of the only Rollout
  belay explain web
  belay explain web-7d9f8c6b5a
  belay explain web -o svg > web.svg        # the evidence as a picture
  belay explain web -o json | jq '.guards[].evidence'";

pub(super) const ANALYZE: &str = "\
Examples:
  belay analyze web
  belay analyze web --for 20m -o json

Nothing is changed. The pods that serve are parted by chance into two halves, one of which is compared with
the other as a canary with stable: there should be no evidence of harm. It shows whether the guards see data,
how much the pods differ among themselves, and how long the proof takes in each step.

The pods and a Prometheus server in the cluster are asked through the API server: that takes the rights to
`get` pods/proxy, or to `create` services/proxy.
Exit codes: 0 every guard has data and finds nothing; 4 a guard would roll back a version that is no
different; 1 a guard has no data, or another error.";

pub(super) const REPLAY: &str = "\
Examples:
  belay replay web                                   # when each guard decided, and when each step was proven
  belay replay web --tolerate '1.5x + 0.2%'          # would it still have been rolled back?
  belay replay web --guard errors --tolerate 2x --confidence careful
  belay replay web --interval 15s
  kubectl get release.belay.dev web-7d9f8c6b5a -o yaml | belay replay -f - --confidence fast

It uses the looks that the release recorded, the last 360 of each guard, and changes nothing.

Streams of your own, judged by the same code, each as a release with one guard:
  belay replay --looks counts.csv
  belay replay --looks counts.csv --tolerate '1.5x + 0.2%' -o jsonl > judged.jsonl
  generate | belay replay --looks - --planned-looks 360 --raw -o jsonl

The file has a header with the columns stream, look, c, nc, s, ns in any order, and optionally dispersion
and spread; then a line per look: c of nc requests of the canary were bad since the look before, s of ns
of stable. Lines of streams may be mixed. Each line of JSON has ln_e_strict and ln_e_margin: the logarithms
of the look's e-values over 1.3, 1.7, 2.5, 4, 8 and 20 times the limit, after division by the dispersion
and before the cap on one look; then the evidence after the look, and what follows from it.";

pub(super) const PROMOTE: &str = "\
Examples:
  belay promote web --reason 'checked by hand'
  belay promote web --full                  # all remaining steps at once
  belay promote web --release web-7d9f8c6b5a --step 2

The same with kubectl (while the release has no commands: path /spec/commands, and a list as value):
  kubectl patch release.belay.dev web-7d9f8c6b5a --type=json \\
    -p '[{\"op\":\"add\",\"path\":\"/spec/commands/-\",\"value\":{\"verb\":\"promote\",\"step\":2}}]'

Who asked is written down by the API server. The step is sent along: if the release has gone on
meanwhile, the command is refused. Exit code 1 when it is refused.";

pub(super) const PAUSE: &str = "\
Examples:
  belay pause web --reason 'looking at the latency'
  belay resume web

The same with kubectl (while the release has no commands: path /spec/commands, and a list as value):
  kubectl patch release.belay.dev web-7d9f8c6b5a --type=json \\
    -p '[{\"op\":\"add\",\"path\":\"/spec/commands/-\",\"value\":{\"verb\":\"pause\"}}]'

A paused release still rolls back when it fails.";

pub(super) const RESUME: &str = "\
Examples:
  belay resume web
  belay resume web --release web-7d9f8c6b5a

The same with kubectl:
  kubectl patch release.belay.dev web-7d9f8c6b5a --type=json \\
    -p '[{\"op\":\"add\",\"path\":\"/spec/commands/-\",\"value\":{\"verb\":\"resume\"}}]'";

pub(super) const ABORT: &str = "\
Examples:
  belay abort web --reason 'wrong version'
  belay abort web --release web-7d9f8c6b5a

The same with kubectl (while the release has no commands: path /spec/commands, and a list as value):
  kubectl patch release.belay.dev web-7d9f8c6b5a --type=json \\
    -p '[{\"op\":\"add\",\"path\":\"/spec/commands/-\",\"value\":{\"verb\":\"abort\"}}]'

The stable pods were never touched: the weight is 0 at once. The change is not tried again until it
is changed, or until belay retry.";

pub(super) const APPROVE: &str = "\
Examples:
  belay approve web --reason 'signed off in the review'
  belay approve web --step 3

The same with kubectl (while the release has no commands: path /spec/commands, and a list as value):
  kubectl patch release.belay.dev web-7d9f8c6b5a --type=json \\
    -p '[{\"op\":\"add\",\"path\":\"/spec/commands/-\",\"value\":{\"verb\":\"approve\",\"step\":3}}]'";

pub(super) const RETRY: &str = "\
Examples:
  belay retry web --reason 'the database was down'

The same with kubectl (while the release has no commands: path /spec/commands, and a list as value):
  kubectl patch release.belay.dev web-7d9f8c6b5a --type=json \\
    -p '[{\"op\":\"add\",\"path\":\"/spec/commands/-\",\"value\":{\"verb\":\"retry\"}}]'

A new attempt starts at the first step.";

pub(super) const UNDO: &str = "\
Examples:
  belay undo web                            # during a release, or after a rollback: the stable template
  belay undo web --wait                     # at rest: the template before it, let out in steps
  belay undo web --to-revision 3
  belay undo web --dry-run

To stop a release it is quicker to abort it: belay abort web";

pub(super) const OPERATOR: &str = "\
Examples:
  belay operator                                          # all namespaces, as in the installed Deployment
  belay operator --namespace shop --log-format json
  belay operator --listen 127.0.0.1:8080";

pub(super) const CRDS: &str = "\
Examples:
  belay crds > crds.yaml
  belay crds | kubectl apply --server-side -f -
  belay crds -o json";

pub(super) const COMPLETION: &str = "\
Examples:
  belay completion bash > /etc/bash_completion.d/belay
  belay completion zsh > \"${fpath[1]}/_belay\"
  belay completion fish > ~/.config/fish/completions/belay.fish";

pub(super) const VERSION: &str = "\
Examples:
  belay version
  belay version --client
  belay version -o json";
