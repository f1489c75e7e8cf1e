#!/bin/sh
# Measure the four networks and publish them: sh results/super-resolution/run.sh WORKING_FOLDER
# Needs npm, and foolbox, scikit-image, scikit-learn and matplotlib for their photographs.
# About two minutes on one idle CPU core.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
npm pack @upscalerjs/esrgan-slim@1.0.0
tar xzf upscalerjs-esrgan-slim-1.0.0.tgz
python "$here/../trained/photographs.py" photographs
python "$here/esrgan.py" package .
perimetry run x2.onnx x3.onnx x4.onnx x8.onnx --images photographs --count 16 \
  --suite structure,erf,deadpixel,padding,output,halo,position --kernel-padding none --out run
python "$here/publish.py" run
