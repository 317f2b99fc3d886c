"""Training: from labelled rows and pretrained weights to a classifier, in memory or in a folder."""
