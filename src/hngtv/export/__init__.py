"""A trained run as what others can use: a package, ONNX files, a MONAI bundle, a challenge container."""
