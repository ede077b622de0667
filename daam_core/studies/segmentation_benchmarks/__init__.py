"""Published segmentation benchmarks of diffusion models, repeated on the user's own copies of the data sets."""
