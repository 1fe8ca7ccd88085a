"""Names of the user attributes that a study of this program bears."""

SPEC = "sweeps:spec"  # JSON, as it was last run
IDENTITY = "sweeps:identity"  # tells it from another study that takes its name later
INPUT_DIGESTS = "sweeps:material"  # digests of what the spec only names
FINISHED = "sweeps:finished"
LAYERS = "sweeps:layers"  # of the base
CHECKPOINTING = "sweeps:activation_checkpointing"  # as it was chosen for all trials
WALL = "sweeps:wall"  # seconds in which drivers searched
SEARCH_ANSWERS = "sweeps:search_answers"  # what the search's model says of each value
WARM_START = "sweeps:warm_start"  # what was taken over from other sweeps when the study was made
REFERENCE = "sweeps:reference"  # what the baseline spends in all
BEST = "sweeps:best"  # number of the trial that the answer hands over; null while there is none
ANSWER = "sweeps:answer"  # grow, do not grow, or not shown
