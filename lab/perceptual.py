"""A perceptual distance for training and measuring (follows with the metrics)."""


def load(spec):
    raise NotImplementedError("the perceptual distance is not there yet")
