"""The benchmark: annspark beside other systems, its kernels beside bare products, and where its time goes."""
