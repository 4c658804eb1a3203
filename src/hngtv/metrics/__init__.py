"""How good a prediction is: overlap, surface distance, and the score of a case."""
