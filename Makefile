# Two commands for a newcomer: `make demo` and `make test`. Everything else is for those who change the code.

.PHONY: demo test soak lint build image bench clean

# The repository that the demo bakes: this one, or `make demo REPOSITORY=https://github.com/facebook/chef-cookbooks`.
REPOSITORY ?= .

demo: ; @scripts/demo.sh "$(REPOSITORY)"

test:
	@scripts/install-packages.sh build test
	cargo test --locked

# The tests of docs/reliability.md in full, which write their figures into it; needs root, takes hours.
soak:
	@scripts/install-packages.sh build test
	SOAK=1 cargo test --locked --test 'reliability_*' -- --test-threads 1

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

build:
	@scripts/install-packages.sh build
	@scripts/build-release.sh

# All that it takes is Docker.
image:
	docker build --tag ebs-bake --build-arg REVISION="$$(git rev-parse HEAD)" .

# Prints the tables of docs/performance.md; needs root, takes about twenty minutes.
bench:
	@scripts/install-packages.sh build test
	cargo bench --locked --bench bake
	BENCH_STORE=ec2 cargo bench --locked --bench bake

clean:
	cargo clean
