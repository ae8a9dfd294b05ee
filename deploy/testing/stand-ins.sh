#!/usr/bin/env bash
# Makes images under the names of .env from packages, for machines that reach no image registry.
#
#   deploy/testing/stand-ins.sh            makes those that are missing; an image that is there is left alone
#
# Debian comes by debootstrap from the mirror that this machine's apt uses, Kafka as its jars from Maven, Prometheus and
# Alertmanager from Debian. Grafana is in none of these: its stand-in answers /api/health, checks what is provisioned and shows
# nothing. Needs root, debootstrap, a running docker engine, Maven.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1
set -a; . "$root/.env"; set +a

debian=stream-ad-testing/debian:trixie

has() { "$docker" image inspect "$1" >/dev/null 2>&1; }

make_debian() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    debootstrap --variant=minbase --include=ca-certificates trixie "$work" "$mirror"
    # An intercepting proxy's authority, where this machine trusts one, must be trusted in there too.
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/*
    tar -C "$work" -c . | "$docker" import --change 'CMD ["bash"]' - "$debian"
}

# build NAME FOLDER [CONTEXT=FOLDER]
build() {
    "$docker" build --quiet --network host --build-arg BASE="$debian" --tag "$1" --file "$2/Dockerfile" \
        --label org.stream-ad.stand-in=true "${3:-$2}"
}

has "$debian" || make_debian
has "$PYTHON_IMAGE" || build "$PYTHON_IMAGE" python
has "$PROMETHEUS_IMAGE" || build "$PROMETHEUS_IMAGE" prometheus
has "$ALERTMANAGER_IMAGE" || build "$ALERTMANAGER_IMAGE" alertmanager
has "$GRAFANA_IMAGE" || build "$GRAFANA_IMAGE" grafana
if ! has "$KAFKA_IMAGE"; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mvn -q -B -f "$root/tests/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/libs"
    cp kafka/* "$work"
    build "$KAFKA_IMAGE" "$work"
fi
for image in "$PYTHON_IMAGE" "$KAFKA_IMAGE" "$PROMETHEUS_IMAGE" "$ALERTMANAGER_IMAGE" "$GRAFANA_IMAGE"; do
    if [ "$("$docker" image inspect --format '{{ index .Config.Labels "org.stream-ad.stand-in" }}' "$image")" = true ]; then
        echo "$image: a stand-in made here"
    else
        echo "$image: the published image"
    fi
done
