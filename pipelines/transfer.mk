# The transfer table: does RL on one language help the others, and does it depend on parallel programs before it?
#
#   make transfer                     # preset tiny: two CPU cores, about 14 minutes a seed after the build
#   make transfer SEEDS="0 1 2"       # more seeds, each with its own base model
#
# World → verified parallel programs → SFT arms at equal budgets → base model → SFT, RL on the source language and
# evaluation, for each arm and seed → tables. Every stage is one command over files, its preset (one TOML) and what it is
# told beside it among its prerequisites, so that a change redoes what depends on it and no more. A killed run goes on
# where it was.
# Reproducible: the same bytes on the same binary and instruction set, whatever the thread count.

R := runs/$(PRESET)
P := pipelines/presets/$(PRESET)

# SOURCE, SFT_LANGUAGES, TARGETS, ARMS, MINING_COVERAGE, RL_STEPS.
include $(P)/preset.mk

comma := ,
empty :=
space := $(empty) $(empty)
join-by-comma = $(subst $(space),$(comma),$(strip $(1)))
# The languages of a list whose toolchains are on this machine (all of them before the judge is built).
USABLE := $(if $(wildcard $(BIN)/cog-judge),$(shell $(BIN)/cog-judge languages --names 2>/dev/null))
usable = $(call join-by-comma,$(if $(USABLE),$(filter $(USABLE),$(1)),$(1)))
ifneq ($(filter transfer-run transfer-dev,$(MAKECMDGOALS)),)
$(if $(filter $(SOURCE),$(or $(USABLE),$(SOURCE))),,$(error no toolchain for $(SOURCE), on which RL trains; see cog-judge languages))
endif

PROBLEMS := $(R)/world/problems.jsonl
PROGRAMS := $(R)/world/programs.parquet

# What commands are told beside their TOML: a file each, written anew when it says something else than last time (another
# preset.mk, other SEEDS, a toolchain that has come).
told-mining := $(call usable,$(SFT_LANGUAGES)) $(MINING_COVERAGE)
told-rl := $(SOURCE) $(RL_STEPS)
told-languages := $(SOURCE) $(call usable,$(SFT_LANGUAGES)) $(call usable,$(TARGETS))
told-rows := $(strip $(SEEDS)): $(strip $(ARMS))
TOLD := $(R)/told
same = $(and $(findstring x$(1)x,x$(2)x),$(findstring x$(2)x,x$(1)x))

.PHONY: transfer transfer-run transfer-dev FORCE
.SECONDARY:

define told-rule
$(TOLD)/$(1): $(if $(call same,$(told-$(1)),$(file <$(TOLD)/$(1))),,FORCE)
	mkdir -p $$(@D) && echo '$(told-$(1))' > $$@
endef
$(foreach t,mining rl languages rows,$(eval $(call told-rule,$(t))))

transfer: build ## the main job: runs/PRESET/transfer.md, transfer.svg and latent.md
	$(MAKE) --no-print-directory -j$(JOBS) transfer-run SETUP=no

transfer-run: $(R)/transfer.md $(R)/latent.md
	cat $^

transfer-dev: $(R)/dev.md ## the same table on the development split: for choices, never for claims
	cat $^

# --- data ---------------------------------------------------------------------------------------------------------

$(R)/world/manifest.json: $(P)/synth.toml
	cog-synth --config $< -o $(@D)

$(R)/candidates.jsonl: $(R)/world/manifest.json $(P)/candidates.toml $(TOLD)/mining
	cog-mine candidates --config $(P)/candidates.toml --languages $(call usable,$(SFT_LANGUAGES)) --problems $(PROBLEMS) $(PROGRAMS) -o $@

$(R)/judged.jsonl: $(R)/candidates.jsonl $(P)/judge-train.toml
	cog-judge --config $(P)/judge-train.toml --coverage $(MINING_COVERAGE) --tests $(PROBLEMS) $< -o $@

$(R)/groups.parquet: $(R)/judged.jsonl $(P)/groups.toml
	cog-mine groups --config $(P)/groups.toml --problems $(PROBLEMS) $< -o $@

$(R)/tokenizer/tokenizer.json: $(R)/world/manifest.json $(P)/tokenizer.toml
	cog-mix tokenizer --config $(P)/tokenizer.toml $(PROGRAMS) --problems $(PROBLEMS) -o $(@D)

$(R)/base-1.parquet $(R)/base-2.parquet: $(R)/%.parquet: $(P)/%.toml $(R)/tokenizer/tokenizer.json
	cog-mix base --config $< $(PROGRAMS) --problems $(PROBLEMS) --tokenizer $(R)/tokenizer -o $@

$(R)/mix/manifest.json: $(R)/groups.parquet $(R)/tokenizer/tokenizer.json $(P)/mix.toml
	cog-mix sft --config $(P)/mix.toml --languages $(call usable,$(SFT_LANGUAGES)) --groups $(R)/groups.parquet --programs $(PROGRAMS) --problems $(PROBLEMS) --tokenizer $(R)/tokenizer -o $(@D)

$(R)/prompts-rl.jsonl: $(R)/tokenizer/tokenizer.json $(P)/prompts-rl.toml $(TOLD)/rl
	cog-mix prompts --config $(P)/prompts-rl.toml --languages $(SOURCE) --problems $(PROBLEMS) --tokenizer $(R)/tokenizer -o $@

$(R)/prompts-eval.jsonl $(R)/prompts-dev.jsonl: $(R)/prompts-%.jsonl: $(P)/prompts-%.toml $(R)/tokenizer/tokenizer.json $(TOLD)/languages
	cog-mix prompts --config $< --languages $(call usable,$(SOURCE) $(TARGETS)) --problems $(PROBLEMS) --tokenizer $(R)/tokenizer -o $@

# --- a seed: base model, then for each arm SFT and RL -----------------------------------------------------------------

# $(1) seed
define seed-rules
$(R)/seed-$(1)/base-1/model.safetensors: $(R)/base-1.parquet $(P)/lm-1.toml $(P)/model.json
	cog-train lm --config $(P)/lm-1.toml --seed $(1) --init-config $(P)/model.json --tokenizer $(R)/tokenizer --data $(R)/base-1.parquet --metrics $(R)/seed-$(1)/base-1.metrics.jsonl -o $$(@D)

$(R)/seed-$(1)/base/model.safetensors: $(R)/seed-$(1)/base-1/model.safetensors $(R)/base-2.parquet $(P)/lm-2.toml
	cog-train lm --config $(P)/lm-2.toml --seed $(1) --model $(R)/seed-$(1)/base-1 --data $(R)/base-2.parquet --metrics $(R)/seed-$(1)/base.metrics.jsonl -o $$(@D)

$(call model-rules,$(1),base,base,$(R)/seed-$(1)/base)
endef

# $(1) seed, $(2) arm. The stamp `start` holds everything that RL starts from: when any of it changes the run starts
# anew, otherwise a killed run goes on.
define arm-rules
$(R)/seed-$(1)/sft/$(2)/model.safetensors: $(R)/seed-$(1)/base/model.safetensors $(R)/mix/manifest.json $(P)/sft.toml
	cog-train sft --config $(P)/sft.toml --seed $(1) --model $(R)/seed-$(1)/base --data $(R)/mix/$(2).parquet --metrics $(R)/seed-$(1)/sft/$(2).metrics.jsonl -o $$(@D)

$(R)/seed-$(1)/rl/$(2)/start: $(R)/seed-$(1)/sft/$(2)/model.safetensors $(R)/prompts-rl.jsonl $(P)/sample-rl.toml $(P)/judge-train.toml $(P)/rl.toml
	rm -rf $$(@D) && mkdir -p $$(@D) && touch $$@

$(R)/seed-$(1)/rl/$(2)/model/model.safetensors: $(R)/seed-$(1)/rl/$(2)/start
	cog-sample --config $(P)/sample-rl.toml --seed $(1) --follow $$(<D)/policy --prompts $(R)/prompts-rl.jsonl --steps $(RL_STEPS) | cog-judge --config $(P)/judge-train.toml --tests $(PROBLEMS) - | cog-train rl --config $(P)/rl.toml --seed $(1) --model $(R)/seed-$(1)/sft/$(2) --policy $$(<D)/policy --steps $(RL_STEPS) --metrics $$(<D)/metrics.jsonl -o $$(@D)

$(call model-rules,$(1),$(2),sft,$(R)/seed-$(1)/sft/$(2))
$(call model-rules,$(1),$(2),rl,$(R)/seed-$(1)/rl/$(2)/model)
endef

# Evaluation of a model on both held-out splits, and the latent probe. $(1) seed, $(2) arm, $(3) stage, $(4) model
define model-rules
$(call evaluation-rules,$(1),$(2),$(3),$(4),eval)
$(call evaluation-rules,$(1),$(2),$(3),$(4),dev)
$(R)/seed-$(1)/probe/$(2).$(3).jsonl: $(4)/model.safetensors $(P)/probe.toml $(TOLD)/languages
	cog-probe --config $(P)/probe.toml --model $(4) --programs $(PROGRAMS) --problems $(PROBLEMS) --languages $(call usable,$(SFT_LANGUAGES) $(TARGETS)) --label arm=$(2)$(comma)stage=$(3)$(comma)seed=$(1) -o $$@
LATENT += $(R)/seed-$(1)/probe/$(2).$(3).jsonl
endef

# Models that descend from one another write many a program alike, which is judged once: verdicts.jsonl keeps them.
# $(1) seed, $(2) arm, $(3) stage, $(4) model, $(5) split
define evaluation-rules
$(R)/seed-$(1)/$(5)/$(2).$(3).greedy.jsonl $(R)/seed-$(1)/$(5)/$(2).$(3).sampled.jsonl: $(R)/seed-$(1)/$(5)/$(2).$(3).%.jsonl: $(4)/model.safetensors $(R)/prompts-$(5).jsonl $(P)/sample-%.toml
	cog-sample --config $(P)/sample-$$*.toml --seed $(1) --model $(4) --prompts $(R)/prompts-$(5).jsonl --label arm=$(2)$(comma)stage=$(3)$(comma)seed=$(1) -o $$@

$(R)/seed-$(1)/$(5)/$(2).$(3).judged.jsonl: $(R)/seed-$(1)/$(5)/$(2).$(3).greedy.jsonl $(R)/seed-$(1)/$(5)/$(2).$(3).sampled.jsonl $(P)/judge-eval.toml
	cog-judge --config $(P)/judge-eval.toml --result-cache $(R)/verdicts.jsonl --tests $(PROBLEMS) $$(filter %.jsonl,$$^) -o $$@

JUDGED-$(5) += $(R)/seed-$(1)/$(5)/$(2).$(3).judged.jsonl
endef

$(foreach s,$(SEEDS),$(eval $(call seed-rules,$(s)))$(foreach a,$(ARMS),$(eval $(call arm-rules,$(s),$(a)))))

# --- tables ---------------------------------------------------------------------------------------------------------

$(R)/transfer.md: $(JUDGED-eval) $(P)/score.toml $(TOLD)/rows
	cog-score transfer --config $(P)/score.toml --source $(SOURCE) --targets $(call join-by-comma,$(TARGETS)) --manifest $(R)/mix/manifest.json --csv $(R)/transfer.csv --svg $(R)/transfer.svg -o $@ $(JUDGED-eval)

$(R)/dev.md: $(JUDGED-dev) $(P)/score.toml $(TOLD)/rows
	cog-score transfer --config $(P)/score.toml --source $(SOURCE) --targets $(call join-by-comma,$(TARGETS)) --svg $(R)/dev.svg -o $@ $(JUDGED-dev)

$(R)/latent.md: $(LATENT) $(P)/latent.toml $(TOLD)/rows
	cog-score latent --config $(P)/latent.toml --svg $(R)/latent.svg -o $@ $(LATENT)
