# Bellhop's commands. Everything that they make is under target/.

CARGO ?= cargo

.PHONY: help
help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.PHONY: demo
demo: ## The main job on real parts: a push runs a workflow (KEEP=1 leaves everything running)
	$(CARGO) build --bins --example runner
	$(CARGO) run --bin demo

.PHONY: test
test: lint ## Everything: format, clippy, and all tests, on a real control plane and a real Gitea
	$(CARGO) run --bin parts
	if [ "$$(uname -s)" = Linux ]; then $(MAKE) static; fi
	$(CARGO) test

# The target is named, although it is the machine's own: procedural macros cannot be static.
STATIC_TARGET = $(shell uname -m)-unknown-linux-gnu
# Addresses that are adjusted at start take a byte instead of 24 each. It needs glibc 2.36, which Debian 12 has.
PACKED = -C link-arg=-Wl,-z,pack-relative-relocs

.PHONY: static
static: ## Build the static binaries that the images of the tests hold
	RUSTFLAGS="-C target-feature=+crt-static $(PACKED)" \
		$(CARGO) build --release --no-default-features --target $(STATIC_TARGET) --bin bellhop --example runner

# For each target; TARGET is a part of the name of a test.
SECONDS = 60
TARGET =

.PHONY: fuzz
fuzz: ## Try what strangers may send for longer (SECONDS=600 for each target, TARGET=jwt for some of them)
	BELLHOP_FUZZ_SECONDS=$(SECONDS) $(CARGO) test --test fuzz -- --nocapture $(TARGET)

.PHONY: check
check: lint ## The quick part: format, clippy, unit tests
	$(CARGO) test --lib

.PHONY: lint
lint: ## Format and clippy, with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets -- -D warnings

.PHONY: bench
bench: ## Measure the ingress, and the controller with 10,000 Subscriptions; writes target/bench.json
	$(CARGO) bench --bench ingress

.PHONY: crds
crds: ## Write crds/, the chart's copy of it, docs/api.md and the schema for editors from the types
	$(CARGO) run --bin bellhop -- crds --dir crds
	$(CARGO) run --bin bellhop -- crds --reference docs/api.md
	$(CARGO) run --bin bellhop -- plugin schema > docs/triggerplugin.schema.json
	mkdir -p charts/bellhop/files/crds
	cp crds/*.yaml charts/bellhop/files/crds/

.PHONY: catalogue
catalogue: ## Write docs/catalogue.md, and the copies of the catalogue's plugins in examples/
	cp charts/bellhop-plugins/plugins/gitea.yaml examples/gitea-push/plugin.yaml
	cp charts/bellhop-plugins/plugins/gitea.yaml examples/gitops/kustomize/platform/gitea.yaml
	cp charts/bellhop-plugins/plugins/github.yaml examples/github-push/plugin.yaml
	BELLHOP_UPDATE=1 $(CARGO) test --lib the_page_of_the_catalogue
