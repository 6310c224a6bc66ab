"""The wishes of a researcher as small experiments, by column of the table: data, networks, training."""
