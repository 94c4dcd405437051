"""Pictures of tokens and clips: pure functions of numpy arrays. They know no model and write no file but `film`."""
