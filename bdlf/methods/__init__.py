"""The methods: a room or a file for each, with its network, the views that it wants and the rows of its ablations."""
