"""One module per command; `table` lists them and `lazy_group` imports each when it is needed."""
