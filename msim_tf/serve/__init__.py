"""Export, embedded server and client of TensorFlow Serving."""
