#!/bin/sh
# Make the four files, compare them and publish: sh results/vendors/run.sh WORKING_FOLDER
# Needs what results/trained/requirements.txt names. About five minutes on one idle CPU core.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
python "$here/../trained/photographs.py" photographs
python "$here/../trained/checkpoints.py" .
python "$here/make.py" .
perimetry compare a.onnx b.onnx c.onnx d.onnx --images photographs --count 16 \
  --html "$here/report.html" --format json >comparison.json
python "$here/publish.py" comparison.json
