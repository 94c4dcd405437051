"""Dataset preparation: official download layout → items → JPEG frames → ArrayRecord files in TFDS format."""
