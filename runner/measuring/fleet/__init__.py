"""Many testbeds at once: exclusive use of each, rounds as tasks of keys, handed out in this process or through Dask."""
