"""Start: how the command line starts Spark, what it sets where nobody has, and how it tells that Java has ended."""
