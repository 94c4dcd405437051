"""Raw downloads → prepared sets: official layouts → items → JPEG frames → ArrayRecord files that TFDS reads."""
