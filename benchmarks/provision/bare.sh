#!/usr/bin/env bash
# The comparator of scripts/bench provision: the least a person would type to
# bring the same packages, files, user, service and firewall rules onto a bare
# machine. It asks nothing, checks nothing, cannot be run twice, and leaves a
# half-made machine when it fails; what that costs is what is being measured.
#
# Runs on the machine as root. Its directory holds the wheelhouse and the very
# files a run of site.yml left on another machine, packed by the benchmark.
set -euo pipefail
cd "$(dirname "$0")"
release=$1
export DEBIAN_FRONTEND=noninteractive

apt-get -q update
apt-get -q -y install python3-venv nginx logrotate ufw

useradd --system --home-dir /var/lib/ptslink --no-create-home --shell /usr/sbin/nologin ptslink
home=/opt/ptslink/releases/$release
mkdir -p "$home" wheels
python3 -m venv --without-pip "$home"
tar -x -f wheelhouse.tar -C wheels
PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) "$home/bin/python" -m pip install -q --no-index \
    --require-hashes --find-links=wheels --requirement=wheels/requirements.txt
ln -s "releases/$release" /opt/ptslink/current

tar -x -f files.tar -C /
chown root:ptslink /etc/ptslink/ptslink.toml
rm -f /etc/nginx/sites-enabled/default
systemctl daemon-reload
systemctl restart systemd-journald
systemctl enable -q --now ptslink.socket ptslink.service ptslink-nginx-logs.timer
nginx -t -q
systemctl enable -q nginx
systemctl reload-or-restart nginx

for port in 22 80 3000; do ufw allow "$port/tcp" >/dev/null; done
ufw default deny incoming >/dev/null
ufw --force enable >/dev/null
