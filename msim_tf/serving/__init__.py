"""TensorFlow Serving's protocols: an embedded server and a client."""
