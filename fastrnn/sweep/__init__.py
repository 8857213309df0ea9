"""The main job: a bank of neurons over a series, each with another W2."""
