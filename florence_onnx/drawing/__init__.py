"""A picture with its answer drawn on it: an importer of Pillow, as `images`."""

from florence_onnx.drawing.draw import draw as draw
