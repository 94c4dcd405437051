"""Files of object stores and other file systems that fsspec opens by URL."""
