"""Geometry of images in patient space: grids, boxes, NIfTI files, resampling, components."""
