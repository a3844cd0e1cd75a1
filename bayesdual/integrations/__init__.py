"""IVON in other people's trainers; each module needs the extra of its name."""

from bayesdual.extras import require

require("bayesdual.integrations", "transformers")
