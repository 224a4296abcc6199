"""Where a build runs: in this process, in several processes of this machine, on a Ray cluster, or as one of n shards.

    cells ──look by look──▶ jobs, one for each missing artifact ──▶ Schedule ──▶ workers: processes, or Ray actors
                            (planning.plan)                        longest critical path first

The decision when a cell has enough images stays in `examining`; the store keeps every artifact complete or absent.
"""
