# What the stages of this preset share.
SOURCE := python
SFT_LANGUAGES := python javascript perl lua
TARGETS := ruby php
ARMS := source nonparallel parallel parallel-problems replay-targets
MINING_COVERAGE := 0.25
RL_STEPS := 30
