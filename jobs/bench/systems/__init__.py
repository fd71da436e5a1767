"""How each rival finds the neighbors: one short file per library, called by run_library.py or run_spark.py."""
