#!/usr/bin/env bash
# setup.sh FOLDER: builds the driver and the compiler there, with CUDA's headers out of NVIDIA's packages for Python.
# `. FOLDER/env` then lets programs of a `cuda-nvrtc` build find them: their kernels run on the processor.
# The exit status is 3 where the headers cannot be had.
set -euo pipefail
command -v g++ > /dev/null || { echo "kernels are compiled by g++, which is not here"; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/kernels"
folder=$(cd "$1" && pwd)
python3 -m pip --quiet --disable-pip-version-check download --no-deps --dest "$folder/packages" \
  nvidia-cuda-runtime==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.3.5.0.6 || exit 3
for package in "$folder"/packages/*.whl; do python3 -m zipfile -e "$package" "$folder"; done
cc -O2 -shared -fPIC -fopenmp -o "$folder/libcuda.so.1" "$here/driver.c" "$here/run.c"
cc -O2 -shared -fPIC -DHERE="\"$here\"" -o "$folder/libnvrtc.so" "$here/compiler.c"
{
  echo "export CUDA_PATH='$folder/nvidia/cu13' STAND_IN_KERNELS='$folder/kernels'"
  echo "export LD_LIBRARY_PATH='$folder'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
} > "$folder/env"
