#!/usr/bin/env bash
# Virtual environments for the peers of benchmarks/encode.py that the project's own cannot hold, in FOLDER/NAME.
#
#   benchmarks/peers.sh [FOLDER]        # .peers if not given, or $SBERT_RAY_PEERS, which the benchmarks read as well
#
# About 3.5 GB and five minutes. An environment that is there already is left as it is: remove its folder to renew it.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-${SBERT_RAY_PEERS:-.peers}}
python=${PYTHON:-python3.11}
mkdir -p "$folder"

# make_environment NAME PACKAGE... : a failed one is removed, so that the next run tries again.
make_environment() {
    local name=$1 environment="$folder/$1"
    shift
    if [ -e "$environment/.installed" ]; then
        echo "$name: installed already"
        return
    fi
    echo "$name: installing $*"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    local pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir)
    # torch first and alone, so that TORCH_INDEX can name an index of CPU builds: PyPI's for Linux bring CUDA. The two
    # installs together never ask for another torch than this.
    case "$*" in
        *sentence-transformers*)
            "${pip[@]}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
            "${pip[@]}" torch==2.13.0 "$@"
            # What needs no pictures does not need torchvision either, and PyPI's does not fit this torch.
            "$environment/bin/python" -m pip uninstall --quiet --yes torchvision 2>/dev/null || true
            ;;
        *) "${pip[@]}" "$@" ;;
    esac
    touch "$environment/.installed"
}

# optimum-onnx 0.1.0 needs a transformers that sentence-transformers 6 does not take any more.
make_environment onnx sentence-transformers==5.7.0 transformers==4.57.6 optimum-onnx==0.1.0 onnxruntime==1.32.0
make_environment openvino sentence-transformers==6.2.0 transformers==5.5.4 optimum-intel==2.2.0 openvino==2026.4.1 \
    nncf==3.4.0
make_environment fastembed fastembed==0.9.1
