"""A small cfg with every kind of layer: two heads at strides 16 and 8, seven anchors of which one has no head."""

TOY = """
[net]
width=96
height=64
channels=3
# a comment
[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
groups=2
activation=mish

[shortcut]
from=-2
activation=linear

[maxpool]
size=2
stride=2

[maxpool]
size=2
stride=1

[convolutional]
batch_normalize=1
filters=6
size=1
stride=1
pad=1
activation=leaky

[convolutional]
size=1
stride=1
pad=1
filters=24
activation=linear

[yolo]
mask=4,5,6
anchors=4,5, 6,9, 12,8, 16,20, 24,40, 50,30, 60,60
classes=3
num=7
ignore_thresh=.6
truth_thresh=1

[route]
layers=-3

[convolutional]
batch_normalize=1
filters=4
size=1
stride=1
pad=1
activation=leaky

[upsample]
stride=2

[route]
layers=-1,4

[convolutional]
size=1
stride=1
pad=1
filters=24
activation=linear

[yolo]
mask=1,2,3
anchors=4,5, 6,9, 12,8, 16,20, 24,40, 50,30, 60,60
classes=3
num=7
ignore_thresh=.6
truth_thresh=1
scale_x_y=1.1
"""
