#!/usr/bin/env bash
# Install the sdist into empty environments - every Python on this machine, with the oldest NumPy it can have and the
# newest - and use it from a folder that has nothing of the source tree. $1: the folder with the sdist.
set -euo pipefail
source=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
sdist=$(realpath "$1"/grilly_optim-*.tar.gz)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat >check.py <<'PY'
import sys
from importlib.resources import files

import numpy as np

import grilly_optim
from grilly_optim.optim import AdamW

assert (files("grilly_optim") / "py.typed").is_file()
for info in grilly_optim.devices():
    assert info.usable, info
    w = np.ones(1000, np.float32)
    AdamW([w], lr=0.1, device=info.device).step(gradients=[np.ones(1000, np.float32)])
    assert abs(w - 0.899).max() < 1e-6, (info.device, w)
kinds = sorted(info.kind for info in grilly_optim.devices())
assert kinds == ["cpu", "numpy", "vulkan"], kinds
print(f"package: Python {sys.version.split()[0]}, NumPy {np.__version__}: {', '.join(kinds)} work")
PY

tried=" "
for python in $(compgen -c python3. | grep -xE 'python3\.(1[1-9])' | sort -u) "$HOME"/.pyenv/versions/*/bin/python3; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  "$python" -c 'import os, sys, sysconfig, ensurepip; sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null || continue
  case $tried in *" $version "*) continue ;; esac
  tried+="$version "
  "$python" -m venv "$version"
  # One wheel per Python, built from the sdist alone; it must run with the oldest NumPy and the newest.
  "$version/bin/python" -m pip wheel -q --no-deps -w "wheel-$version" --config-settings=cmake.define.GRILLY_VULKAN=ON "$sdist"
  for numpy in oldest newest; do
    requirement=numpy
    if [ "$numpy" = oldest ]; then
      case $version in 3.11 | 3.12) requirement=numpy==2.0.0 ;; 3.13) requirement=numpy==2.1.0 ;; *) continue ;; esac
    fi
    "$version/bin/python" -m pip install -q --force-reinstall "$requirement" "wheel-$version"/*.whl
    "$version/bin/python" check.py
    "$version/bin/python" -m pip install -q "pytest>=8" "pytest-xdist>=3.8" "hypothesis>=6.100"
    "$version/bin/python" -m pytest -q -n 2 --dist worksteal -c "$source/pyproject.toml" --rootdir "$source" -p no:cacheprovider \
      "$source"/tests/test_{optimizers,gradients,bad_input,state,arrays}.py
  done
done
[ "$tried" != " " ] || { echo "package: no Python 3.11 or newer was found" >&2; exit 1; }
