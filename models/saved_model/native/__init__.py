"""TensorFlow by its C API, through ctypes: no Python TensorFlow, and no lock held while the model runs."""
