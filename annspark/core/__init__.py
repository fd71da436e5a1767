"""The numeric core: NumPy arrays in, NumPy arrays out; no Spark, no files, no clock, no globals."""
