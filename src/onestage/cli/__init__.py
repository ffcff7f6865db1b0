"""The roof: one short command per file; parse, call one function, print."""
