"""SavedModels: written, loaded as TensorFlow Serving loads them, and described."""
