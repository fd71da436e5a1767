"""The Spark steps, one per file: DataFrame in, DataFrame out.  They use only the DataFrame API, as Connect needs."""
