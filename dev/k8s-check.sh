#!/usr/bin/env bash
# Checks everything for Kubernetes that can be checked without a cluster, in well under a minute.
#
#   dev/k8s-check.sh            check
#   dev/k8s-check.sh --write    render k8s/dist and the PrometheusRule anew, then check
#
# Overlays render as in k8s/dist · strict schemas of the oldest and newest supported version · checkov · promtool: rules and their
# tests · amtool: configuration and routes · cross-references · admission policies on fixtures · the pipelines' SQL, if the program
# is built.
# Environment: MILLSTREAM_CACHE (~/.cache/millstream, where dev/setup.sh kubernetes puts the tools), MILLSTREAM_BINARIES (folder of
# the binaries; target/release of this tree).
set -euo pipefail

cd "$(dirname "$0")/.."
cache=${MILLSTREAM_CACHE:-$HOME/.cache/millstream}
tools=$cache/tools/kubernetes
binaries=${MILLSTREAM_BINARIES:-${CARGO_TARGET_DIR:-target}/release}
python=$tools/venv/bin/python
promtool=$tools/bin/promtool
amtool=$tools/bin/amtool
case ${1:-} in '' | --write) ;; *)
  sed -n '2,11s/^# \{0,1\}//p' "$0"
  exit 2
  ;;
esac
for tool in "$python" "$promtool" "$amtool"; do
  [ -x "$tool" ] || {
    echo "dev/k8s-check.sh: $tool is missing; run dev/setup.sh kubernetes" >&2
    exit 1
  }
done
if [ -x "$tools/bin/kustomize" ]; then export KUSTOMIZE="$tools/bin/kustomize build"; else export KUSTOMIZE='kubectl kustomize'; fi
export PYTHONDONTWRITEBYTECODE=1

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0
step() { # NAME COMMAND…: its output only if it fails
  local name=$1 begun=$SECONDS
  shift
  if "$@" >"$dir/out" 2>&1; then
    echo "ok      $name$(tail -n 1 "$dir/out" | sed -n 's/^\([^{]\{1,100\}\)$/: \1/p') ($((SECONDS - begun)) s)"
  else
    echo "FAILED  $name"
    sed 's/^/        /' "$dir/out"
    failed=1
  fi
}

[ "${1:-}" != --write ] || step 'write' "$python" k8s/tests/generate.py
step 'render' "$python" k8s/tests/generate.py --check
mkdir "$dir/built-in"
step 'schemas' "$python" k8s/tests/schemas.py "$dir/built-in"
# Left out: CKV_K8S_43 and _15, digests and pulls (a release pins digests; images made on this machine cannot be pulled), and CKV_K8S_35,
# secrets in variables (the client of the object store reads keys from nowhere else; clouds give roles instead).
step 'checkov' "$tools/venv/bin/checkov" --framework kubernetes --skip-download --quiet --compact -d "$dir/built-in" \
  --skip-check CKV_K8S_43,CKV_K8S_15,CKV_K8S_35
step 'rules' "$promtool" check rules --lint=all k8s/base/monitoring/recording.rules.yaml k8s/base/monitoring/alerts.rules.yaml
step 'rules tested' "$promtool" test rules k8s/tests/rules/alerts.test.yaml k8s/tests/rules/alerts-slow.test.yaml k8s/tests/rules/recording.test.yaml
step 'monitoring' "$python" k8s/tests/monitoring.py "$amtool" "$promtool"
step 'cross-references' "$python" k8s/tests/crossref.py
step 'policies' "$python" k8s/tests/policies.py
if [ -x "$binaries/millstream" ]; then
  # Addresses of Google and Azure are refused until the engine can reach them.
  for overlay in base overlays/dev overlays/prod-aws; do
    step "SQL of $overlay" "$binaries/millstream" validate -f "k8s/$overlay/pipeline/pipeline.sql" -D checkpointLocation=s3://millstream/x
  done
  for page in coming-from-spark coming-from-flink; do
    sed -n '/^```sql$/,/^```$/p' "docs/$page.md" | grep -v '^```' >"$dir/$page.sql"
    step "SQL of docs/$page.md" "$binaries/millstream" validate -f "$dir/$page.sql"
  done
else
  echo "left out: the pipelines' SQL, $binaries/millstream is not built"
fi
[ $failed = 0 ] || exit 1
