{% autoescape off %}# Makes every job on this Windows runner fetch its {{ organization.login }} policy from {{ host }}.
#
#   .\install-job-hooks.ps1 -ApiKey ps_vm_... -RunnerFolder C:\actions-runner
#
# Run as administrator. Behind a certificate authority of your own, also give -CaFile its certificate.
param(
    [Parameter(Mandatory = $true)] [string] $ApiKey,
    [Parameter(Mandatory = $true)] [string] $RunnerFolder,
    [string] $CaFile = "",
    [string] $HooksUrl = "{{ hooks }}"
)
$ErrorActionPreference = "Stop"
$hooks = "C:\step-security"

if (-not (Get-Command node -ErrorAction SilentlyContinue)) {
    throw "Install Node.js first: the hooks run under it."
}

New-Item -ItemType Directory -Force -Path $hooks, "C:\agent" | Out-Null
foreach ($phase in "pre", "post") {
    Invoke-WebRequest -UseBasicParsing -Uri "$HooksUrl/$phase.js" -OutFile "$hooks\$phase.js"
}
$extra = ""
if ($CaFile) {
    Copy-Item -Force $CaFile "$hooks\ca.pem"
    $extra = "`$env:NODE_EXTRA_CA_CERTS = '$hooks\ca.pem'"
}
foreach ($phase in "pre", "post") {
    @"
`$env:STEP_API = '{{ api }}'
`$env:STEP_TELEMETRY_URL = '{{ telemetry }}'
`$env:STEP_API_KEY = '$ApiKey'
$extra
node '$hooks\$phase.js'
"@ | Set-Content -Encoding UTF8 -Path "$hooks\step-${phase}job-hook.ps1"
}

# The runner reads this file when it starts; a service would see new variables of the machine only after a reboot.
$file = Join-Path $RunnerFolder ".env"
$kept = @(if (Test-Path $file) { Get-Content $file | Where-Object { $_ -notmatch "^ACTIONS_RUNNER_HOOK_JOB_" } })
$kept += "ACTIONS_RUNNER_HOOK_JOB_STARTED=$hooks\step-prejob-hook.ps1"
$kept += "ACTIONS_RUNNER_HOOK_JOB_COMPLETED=$hooks\step-postjob-hook.ps1"
Set-Content -Encoding ASCII -Path $file -Value $kept
Write-Output "Restart the runner service; the next job appears under Runs."
{% endautoescape %}
