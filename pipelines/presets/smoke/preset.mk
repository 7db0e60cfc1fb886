# The main job with everything small: nothing is learnt, every stage runs. What CI looks at.
SOURCE := python
SFT_LANGUAGES := python perl lua
TARGETS := ruby
ARMS := source nonparallel parallel
MINING_COVERAGE := 0.25
RL_STEPS := 3
