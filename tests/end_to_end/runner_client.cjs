// A client of this project's own that asks the store as runners do, and falls back to audit where they do: the action
// (as of 2.20), the job hooks of a virtual machine, and those of Actions Runner Controller.
//
// Reads what the job is as JSON from its input, and writes as JSON what the job would run under.
"use strict";
const fs = require("fs");
const https = require("https");
const { randomUUID } = require("crypto");

const job = JSON.parse(fs.readFileSync(0, "utf8"));
const told = { requests: 0, statuses: [] };
const sleep = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));

/** `owner/repo/.github/workflows/ci.yml@ref` is `ci.yml`; what is not of that form stays as it is, up to the `@`. */
function workflowOf(reference) {
  return reference.replace(/^.*\.github\/workflows\//, "").split("@")[0];
}

// --- the action -----------------------------------------------------------------------------------------------------

class WrongStatus extends Error {
  constructor(status) {
    super(`status ${status}`);
    this.status = status;
  }
}

async function actionGet(address, headers) {
  told.requests += 1;
  const answer = await fetch(address, { headers, signal: AbortSignal.timeout(3000) });
  told.statuses.push(answer.status);
  if (!answer.ok) throw new WrongStatus(answer.status);
  return answer.json();
}

/** Three tries, a second apart; `final` are statuses that are not tried again. */
async function actionFetch(address, headers, final = []) {
  for (let tried = 1; ; tried += 1) {
    try {
      return await actionGet(address, headers);
    } catch (problem) {
      if (tried === 3 || final.includes(problem.status)) throw problem;
      await sleep(1000);
    }
  }
}

/** The store's mode and switches beat the workflow's; the workflow's own endpoints beat the store's. */
function merged(inputs, policy) {
  const result = { ...inputs };
  if (inputs.allowed_endpoints === "") result.allowed_endpoints = policy.allowed_endpoints.join(" ");
  for (const name of ["disable_sudo", "disable_sudo_and_containers", "disable_file_monitoring", "egress_policy"]) {
    if (policy[name] !== undefined) result[name] = policy[name];
  }
  return result;
}

async function actionPolicy(inputs, correlationId) {
  const query = Object.entries({
    workflow: workflowOf(job.workflow_ref),
    run_id: job.run_id,
    correlationId,
  }).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  const address = `${job.api}/github/${job.owner}/${job.repository}/actions/policies/workflow-policy?${query.join("&")}`;
  const headers = { Authorization: `vm-api-key ${job.key}`, Source: "github-actions" };
  try {
    const policy = await actionFetch(address, headers, [404]);
    const says = policy && (policy.egress_policy || (policy.allowed_endpoints || []).length > 0);
    if (!says) return { ...inputs, egress_policy: "audit" };
    told.policy = policy.policy_name;
    return merged(inputs, policy);
  } catch (problem) {
    told.annotated = !(problem.status >= 400 && problem.status < 500);
    return { ...inputs, egress_policy: "audit" };
  }
}

/** The input `policy:` asks with GitHub's token. A status of 4xx leaves the workflow's inputs as they are. */
async function actionNamedPolicy(inputs) {
  const headers = { Authorization: `Bearer ${job.token}`, Source: "github-actions" };
  try {
    return merged(inputs, await actionFetch(`${job.api}/github/${job.owner}/actions/policies/${job.policy}`, headers));
  } catch (problem) {
    told.annotated = true;
    const refused = problem.status >= 400 && problem.status < 500;
    return refused ? inputs : { ...inputs, egress_policy: "audit" };
  }
}

async function registered(correlationId) {
  const answer = await fetch(`${job.api}/github/${job.owner}/${job.repository}/actions/runs/${job.run_id}/monitor`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ correlation_id: correlationId, job: job.job }),
    signal: AbortSignal.timeout(3000),
  });
  const body = answer.ok ? await answer.json() : {};
  return { status: answer.status, one_time_key: body.one_time_key, summary: body.monitoring_started === true };
}

/** Which agent the action installs; silence means the vendor's. */
async function agentKind() {
  try {
    const address = `${job.api}/github/${job.owner}/actions/tls-inspection-status`;
    const answer = await fetch(address, { signal: AbortSignal.timeout(3000) });
    return answer.status === 200 ? "enterprise" : "community";
  } catch {
    return "enterprise";
  }
}

async function action() {
  const correlationId = randomUUID();
  const inputs = {
    egress_policy: "block",
    allowed_endpoints: "",
    disable_sudo: false,
    disable_sudo_and_containers: false,
    disable_file_monitoring: false,
    ...job.inputs,
  };
  const ends = job.policy ? await actionNamedPolicy(inputs) : await actionPolicy(inputs, correlationId);
  told.failed = !["audit", "block"].includes(ends.egress_policy);
  if (job.github_hosted) {
    const monitor = await registered(correlationId);
    Object.assign(told, { monitor, agent: await agentKind() });
    if (job.calls) await agentCalls(correlationId, monitor.one_time_key);
    if (job.lasts) await recorded(correlationId);
    if (monitor.summary) told.summary = await summary(correlationId, {});
  }
  return ends;
}

// --- the open-source agent ------------------------------------------------------------------------------------------

/** Tells of each call; any status but 200 makes the agent send again, with nothing in the body. */
async function agentCalls(correlationId, oneTimeKey) {
  told.telemetry = [];
  for (const [kind, event] of job.calls) {
    const address = `${job.api}/github/${job.owner}/${job.repository}/actions/jobs/${correlationId}/${kind}`;
    const headers = { "x-one-time-key": oneTimeKey, "Content-Type": "application/json; charset=UTF-8" };
    const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify(event) });
    told.telemetry.push(answer.status);
  }
}

async function agentFetch() {
  const headers = { Authorization: `vm-api-key ${job.key}` };
  await hookGet(`${POLICIES()}/workflow-policy`, hookQuery(job.runner_name), headers);
}

// --- the job hooks --------------------------------------------------------------------------------------------------

function once(address, options) {
  told.requests += 1;
  return new Promise((resolve, reject) => {
    const request = https.request(address, { timeout: 5000, ...options }, (answer) => {
      let body = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (body += part));
      answer.on("end", () => resolve({ status: answer.statusCode, body }));
    });
    request.on("timeout", () => request.destroy(new Error("no answer in 5 s")));
    request.on("error", reject);
    request.end();
  });
}

/** Four tries where there is no connection; every status counts as an answer, and no redirect is followed. */
async function hookGet(path, query, headers = {}) {
  const address = new URL(`${job.api}${path}`);
  for (const [name, value] of Object.entries(query)) address.searchParams.append(name, value);
  for (let tried = 1; ; tried += 1) {
    try {
      const answer = await once(address, { headers });
      told.statuses.push(answer.status);
      return answer;
    } catch (problem) {
      if (tried === 4) throw problem;
      await sleep(1000);
    }
  }
}

function hookQuery(correlationId) {
  const newest = job.newest ? { evaluate_run_policies: "true" } : {};
  return { workflow: workflowOf(job.workflow_ref), run_id: job.run_id, correlationId, ...newest };
}

const POLICIES = () => `/github/${job.owner}/${job.repository}/actions/policies`;
const texts = (value) => (Array.isArray(value) ? value.filter((entry) => typeof entry === "string").join(" ") : "");

function hookReads(body) {
  const policy = JSON.parse(body);
  if (typeof policy.policy_name !== "string" || !policy.policy_name.trim()) return { egress_policy: "audit" };
  told.policy = policy.policy_name.trim();
  const mode = typeof policy.egress_policy === "string" && policy.egress_policy ? policy.egress_policy : "audit";
  const ends = { egress_policy: mode, allowed_endpoints: texts(policy.allowed_endpoints) };
  for (const name of ["sudo", "sudo_and_containers", "file_monitoring", "telemetry"]) {
    ends[`disable_${name}`] = policy[`disable_${name}`] === true;
  }
  return ends;
}

async function vmHook() {
  await once(new URL(job.api), { method: "HEAD" });
  try {
    const headers = { Authorization: `vm-api-key ${job.key}` };
    const answer = await hookGet(`${POLICIES()}/workflow-policy`, hookQuery(randomUUID()), headers);
    return answer.status === 200 ? hookReads(answer.body) : { egress_policy: "audit" };
  } catch {
    return { egress_policy: "audit" };
  }
}

async function policyStatus(correlationId) {
  const answer = await hookGet(`${POLICIES()}/workflow-policy/status`, { correlation_id: correlationId });
  const status = answer.status === 200 ? JSON.parse(answer.body).status : "";
  return ["APPLIED", "NOT_APPLIED"].includes(status) ? status : "SLEEP";
}

async function waitedForPolicy() {
  const patience = Date.now() + 10_000;
  for (let status = ""; Date.now() < patience; await sleep(1000)) {
    status = await policyStatus(job.runner_name);
    if (status !== "NOT_APPLIED") return status;
    // The agent on the node fetches a job's policy a while after the hook began to wait for that.
    told.waits = (told.waits || 0) + 1;
    if (told.waits === job.agent_fetches_after) await agentFetch();
  }
  return "GAVE_UP";
}

/** The job's own steps, which last longer than the store takes to record what the job fetched at its start. */
async function recorded(correlationId) {
  for (let tries = 0; tries < 120 && (await policyStatus(correlationId)) !== "APPLIED"; tries += 1) await sleep(250);
}

async function arcHook() {
  await once(new URL(job.api), { method: "HEAD" });
  const answer = await hookGet(`${POLICIES()}/workflow-check`, hookQuery(job.runner_name));
  const said = answer.status === 200 ? JSON.parse(answer.body) : {};
  const ends = { has_policy: said.has_policy === true, waited: null };
  if (ends.has_policy && said.should_sleep === true) ends.waited = await waitedForPolicy();
  if (job.ends) told.summary = await summary(job.runner_name, { environment: "ARC" });
  return ends;
}

async function summary(correlationId, query) {
  const path = `/github/${job.owner}/${job.repository}/actions/runs/${job.run_id}/correlation/${correlationId}`;
  const answer = await hookGet(`${path}/job-markdown-summary`, query);
  return answer.status === 200 ? answer.body : null;
}

const CLIENTS = { action, "vm-hook": vmHook, "arc-hook": arcHook };

CLIENTS[job.client]().then((ends) => process.stdout.write(JSON.stringify({ ...told, ends })));
