{% autoescape off %}#!/usr/bin/env bash
# Makes every job on this Linux runner fetch its policy of {{ organization.login }} from {{ host }}.
#
#   sudo STEP_API_KEY=ps_vm_… RUNNER_USER=runner RUNNER_FOLDER=/home/runner/actions-runner ./install-job-hooks.sh
#
# Behind a certificate authority of your own, also set CA_FILE to its certificate.
set -euo pipefail

: "${STEP_API_KEY:?set STEP_API_KEY to a VM key from the settings of Policy Store}"
: "${RUNNER_USER:?set RUNNER_USER to the account that the runner works under}"
: "${RUNNER_FOLDER:?set RUNNER_FOLDER to the folder that the runner was installed in}"
hooks=/opt/step-security
hooks_url="${HOOKS_URL:-{{ hooks }}}"

[ -d "$RUNNER_FOLDER" ] || { echo "There is no folder $RUNNER_FOLDER." >&2; exit 1; }
command -v node >/dev/null || { echo "Install Node.js first: the hooks run under it." >&2; exit 1; }

install -d -m 0755 "$hooks"
install -d -m 0755 -o "$RUNNER_USER" /home/agent
for phase in pre post; do
  curl --fail --silent --show-error --location "$hooks_url/$phase.js" --output "$hooks/$phase.js"
done
[ -z "${CA_FILE:-}" ] || install -m 0644 "$CA_FILE" "$hooks/ca.pem"

umask 077
cat > "$hooks/environment" <<EOF
export STEP_LINUX_HOOK_MODE=vm STEP_HOOK_MODE=vm
export STEP_API='{{ api }}'
export STEP_TELEMETRY_URL='{{ telemetry }}'
export STEP_API_KEY='$STEP_API_KEY'
EOF
if [ -f "$hooks/ca.pem" ]; then
  echo "export NODE_EXTRA_CA_CERTS='$hooks/ca.pem'" >> "$hooks/environment"
fi
chown "$RUNNER_USER" "$hooks/environment"

umask 022
for phase in pre post; do
  cat > "$hooks/step-${phase}job-hook.sh" <<EOF
#!/usr/bin/env bash
. '$hooks/environment'
exec node '$hooks/$phase.js'
EOF
  chmod 0755 "$hooks/step-${phase}job-hook.sh"
done

# The runner reads this file when it starts, also as a service, which knows nothing of /etc/environment.
variables="$RUNNER_FOLDER/.env"
touch "$variables"
# The second expression ends the last line, where it has no end.
sed -i -e '/^ACTIONS_RUNNER_HOOK_JOB_/d' -e '$a\' "$variables"
cat >> "$variables" <<EOF
ACTIONS_RUNNER_HOOK_JOB_STARTED=$hooks/step-prejob-hook.sh
ACTIONS_RUNNER_HOOK_JOB_COMPLETED=$hooks/step-postjob-hook.sh
EOF
chown "$RUNNER_USER" "$variables"

ask() { curl --silent --show-error --output /dev/null ${CA_FILE:+--cacert "$CA_FILE"} "$@"; }
if [ ! -x /home/agent/agent ] && ! ask --fail '{{ api }}/harden-runner-agent/github/linux/single/releases/latest'; then
  echo "Neither this machine nor the store has an agent: jobs fetch their policy, and nothing enforces it." >&2
fi
ask '{{ api }}' \
  && echo "The store answers. Restart the runner service; the next job appears under Runs."
{% endautoescape %}
