"""A picture with its answer drawn on it: an importer of Pillow, as `images`."""

from florence_onnx.drawing.picture import draw as draw
