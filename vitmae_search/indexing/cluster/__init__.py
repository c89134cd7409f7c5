"""Reading and embedding photos on a Ray cluster; the process that runs `index` records what comes back.

`connection` joins a cluster, `worker` is what runs there, and `reader` streams files to it and what they came
to back. Ray is imported in functions only: nobody else needs it.
"""
