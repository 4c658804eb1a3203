"""What the labels of a mask mean."""

LABEL_NAMES = {1: "GTVp", 2: "GTVn"}
"""Primary tumour and involved lymph nodes; 0 is background."""
