#!/bin/sh
# Fine-tune and publish: sh results/fine-tuning/run.sh WORKING_FOLDER FASHION_MNIST
# WORKING_FOLDER gets the weights (python results/trained/checkpoints.py); FASHION_MNIST holds its four
# IDX files (Debian: dataset-fashion-mnist). A rerun goes on where it stopped. About two hours on one
# idle CPU core.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
python "$here/../trained/checkpoints.py" .
for network in mobilenetv2_100@torchvision.pth tf_efficientnet_lite0@lite0.pth; do
  name=${network%%@*}
  perimetry train --network "timm:$network" --kernel-padding none,zero --task micro_object \
    --size 112 --box 4 --train 512 --test 512 --epochs 16 --batch 64 --rate 0.01 --seeds 8 \
    --export 0 --out "runs/$name.micro"
  perimetry train --network "timm:$network" --kernel-padding none,zero --task classification \
    --data "$2" --size 64 --train 4096 --test 1000 --epochs 4 --batch 64 --rate 0.01 --seeds 4 \
    --export 0 --out "runs/$name.ordinary"
done
python "$here/publish.py" runs
