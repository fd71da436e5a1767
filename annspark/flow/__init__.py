"""The Spark steps: DataFrame in, DataFrame out, one step per file; DataFrame API only, so that Connect works too."""
