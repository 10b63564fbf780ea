#!/bin/sh
# The machines of scripts/lab as an Ansible inventory; PTSLINK_LAB picks the lab.
exec "$(dirname "$0")/../../scripts/lab" inventory "$@"
