#!/bin/sh
# Another site, linked from outside of nginx's tree, and rules of somebody's own.
set -e
apt-get install --yes --quiet nginx logrotate ufw python3-venv >/dev/null
mkdir -p /srv/app
echo 'server { listen 8080; location / { return 200 "theirs"; } }' >/srv/app/nginx.conf
ln -s ../../../srv/app/nginx.conf /etc/nginx/sites-enabled/app
systemctl enable --now nginx
systemctl reload nginx
ufw allow 22/tcp comment theirs
ufw allow 8080/tcp
ufw --force enable
