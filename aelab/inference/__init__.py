"""A trained LSTM without TensorFlow: the network, step by step in NumPy, and the file of its weights."""
