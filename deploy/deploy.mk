# The deployment: Docker Compose, and the proof that it works. Included by the Makefile at the top.

DOCKER ?= docker
COMPOSE ?= $(shell $(DOCKER) compose version >/dev/null 2>&1 && echo $(DOCKER) compose || echo docker-compose)
PROMETHEUS := .cache/prometheus/usr/bin
export DOCKER_BUILDKIT = 1
export COMPOSE_DOCKER_CLI_BUILD = 1

.PHONY: image
image: ## The container image of stream-ad
	@set -a; . ./.env; set +a; \
	$(DOCKER) build -f deploy/Dockerfile $(IMAGE_ARGS) -t "$$WORKER_IMAGE" \
	  --build-arg PYTHON_IMAGE="$$PYTHON_IMAGE" --build-arg TORCH="$$TORCH" --build-arg PIP_INDEX_ARGS="$$PIP_INDEX_ARGS" \
	  --build-arg VERSION="$${WORKER_IMAGE##*:}" --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null)" .

.PHONY: up
up: image ## Kafka, a worker, a simulated plant, Prometheus, Alertmanager and Grafana, in containers
	GRAFANA_ANONYMOUS_VIEWER=true $(COMPOSE) --profile demo up -d
	@. ./.env; echo "Grafana: http://127.0.0.1:$$GRAFANA_PORT  Prometheus: http://127.0.0.1:$$PROMETHEUS_PORT"

.PHONY: down
down: ## Stop the containers; what they have stored is kept
	$(COMPOSE) --profile demo down

.PHONY: logs
logs: ## Follow the logs of the containers
	$(COMPOSE) --profile demo logs --follow --tail 50

.PHONY: grafana-password
grafana-password: ## Print the password of Grafana's admin
	@$(COMPOSE) exec -T grafana cat /run/grafana-secrets/admin_password

.PHONY: dashboards
dashboards: $(READY) ## Write the dashboards again from deploy/grafana
	$(BIN)/python deploy/grafana/generate.py

.PHONY: stand-ins
stand-ins: ## Make the base images that are missing from packages, where no image registry can be reached (root)
	DOCKER="$(DOCKER)" deploy/testing/stand-ins.sh

.PHONY: deploy-check
deploy-check: $(READY) image ## Bring the whole deployment up and prove what it promises; needs a docker engine
	DOCKER="$(DOCKER)" COMPOSE="$(COMPOSE)" $(BIN)/python deploy/testing/check.py

# The tests of the rules run Prometheus' own tools. Where they are not installed, Debian's package is unpacked, not installed, so
# that no service is started.
# Pages are looked at in a real browser, which is installed as root.
test: promtool chromium

.PHONY: promtool
promtool:
	@command -v promtool >/dev/null && command -v prometheus >/dev/null || test -x $(PROMETHEUS)/promtool || deploy/testing/promtool.sh

.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	deploy/testing/chromium.sh
