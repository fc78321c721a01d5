"""Drawing of an answer on its picture: an importer of Pillow, as `images`."""

from florence_onnx.drawing.picture import draw as draw
