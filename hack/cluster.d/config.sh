# shellcheck shell=bash
# The files that the components of the local cluster read. Sourced by
# hack/cluster.

NODE_IP=10.99.0.2
API=https://127.0.0.1:6443

# write_pki makes the keys, once for the life of the cluster.
write_pki() {
  [[ ! -s $STATE/pki/apiserver.key ]] || return 0
  "$STATE/kubernetes" keygen "$STATE/pki" \
    127.0.0.1 "$NODE_IP" 10.96.0.1 localhost node \
    kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local
}

# write_users makes tokens and kubeconfigs, once for the life of the cluster.
write_users() {
  [[ ! -s $STATE/tokens.csv ]] || return 0
  mkdir -p "$STATE/kubeconfig"
  : > "$STATE/tokens.csv.tmp"
  user admin admin system:masters
  # A person, and another manager of objects (Argo CD, Flux), seen by their names.
  user alice alice system:masters
  user gitops gitops system:masters
  # Authenticated, and nothing more.
  user nobody nobody ''
  # What Belay runs as: without rights but for those that its RBAC gives.
  user belay system:serviceaccount:belay-system:belay system:serviceaccounts,system:serviceaccounts:belay-system
  # The components. RBAC and the node authorizer know these names.
  user controller-manager system:kube-controller-manager ''
  user scheduler system:kube-scheduler ''
  user kubelet system:node:node system:nodes
  user kube-proxy system:kube-proxy ''
  mv "$STATE/tokens.csv.tmp" "$STATE/tokens.csv"
}

# user FILE NAME GROUPS: a new token and a kubeconfig with it.
user() {
  local token
  token=$(od -An -v -N 24 -t x1 /dev/urandom | tr -d ' \n')
  if [[ -n $3 ]]; then
    echo "$token,$2,$1,\"$3\"" >> "$STATE/tokens.csv.tmp"
  else
    echo "$token,$2,$1" >> "$STATE/tokens.csv.tmp"
  fi
  cat > "$STATE/kubeconfig/$1" << END
apiVersion: v1
kind: Config
clusters:
- name: belay
  cluster: {server: "$API", certificate-authority: "$STATE/pki/ca.crt"}
users:
- name: $1
  user: {token: $token}
contexts:
- name: belay
  context: {cluster: belay, user: $1, namespace: default}
current-context: belay
END
}

write_containerd_config() {
  mkdir -p "$STATE"/containerd/{root,opt} "$STATE/cni"
  cat > "$STATE/containerd/config.toml" << END
version = 2
root = "$STATE/containerd/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$STATE/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "node.local/pause:1"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE a score cannot be lowered, and pods would not start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
END
  cat > "$STATE/cni/10-bridge.conflist" << 'END'
{"cniVersion": "0.4.0", "name": "belay", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "forceAddress": true,
   "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/networks",
            "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
}

write_kubelet_config() {
  # kube-proxy ends when its file is written again: so only once, and last.
  [[ ! -e $STATE/kube-proxy.yaml ]] || return 0
  mkdir -p "$STATE/kubelet"
  # Names are not served: a lookup asks a closed port of the pod and fails at once.
  echo 'nameserver 127.0.0.1' > "$STATE/kubelet.resolv.conf"
  cat > "$STATE/kubelet.yaml" << END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
# A tree of our own, so that taking it away can hit nobody else's pods.
cgroupRoot: /$CGROUP
enforceNodeAllocatable: []
oomScoreAdj: 0
maxOpenFiles: 20000
maxPods: 500
# The disk and memory are the machine's: how full they are says nothing here.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
podLogsDir: /var/log/pods
volumePluginDir: /var/lib/volume-plugins
containerLogMaxSize: 2Mi
containerLogMaxFiles: 2
resolvConf: $STATE/kubelet.resolv.conf
clusterDNS: ["127.0.0.1"]
clusterDomain: cluster.local
# What tests wait for must not be held back by rate limits.
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 200
kubeAPIBurst: 400
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
END
  cat > "$STATE/kube-proxy.yaml.tmp" << END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: "$STATE/kubeconfig/kube-proxy"}
conntrack: {maxPerCore: 0, min: 0}
oomScoreAdj: 0
clusterCIDR: 10.88.0.0/16
hostnameOverride: node
END
  mv "$STATE/kube-proxy.yaml.tmp" "$STATE/kube-proxy.yaml"
}

write_prometheus_config() {
  mkdir -p "$STATE/prometheus"
  cat > "$STATE/prometheus.yaml" << END
global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}
scrape_configs:
- job_name: pods
  file_sd_configs:
  - files: [$STATE/prometheus/pods.json]
END
}
