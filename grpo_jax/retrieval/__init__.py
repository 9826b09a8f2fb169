"""Documents for a query: BM25 in process, vectors on the devices, a server by HTTP."""
