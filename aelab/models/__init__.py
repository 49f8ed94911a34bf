"""Models: functions from an input shape to a `keras.Model` or an estimator."""
