// Makes of this machine the runner that the public action expects: the vendor's host name, which is built into it, leads
// to the store under test (a team does that by its DNS), every other host leads there too, and the machine is no
// container. Everything else of the client stays as it is.
const fs = require("fs");
const tls = require("tls");

const VENDOR = "agent.api.stepsecurity.io";
const [host, port] = process.env.STORE_UNDER_TEST.split(":");
const { connect } = tls;
const { readFileSync, statSync } = fs;

tls.connect = function (...given) {
  const options = given.find((value) => value && typeof value === "object");
  if (options && options.host) {
    options.servername = VENDOR;
    options.host = host;
    options.port = Number(port);
    delete options.lookup;
  }
  return connect.apply(this, given);
};

// The agent's folder is the job's own, so that nothing of the machine is touched.
const ours = (path) =>
  typeof path === "string" && path.startsWith("/home/agent") ? `${process.env.RUNNER_TEMP}${path.slice(5)}` : path;
for (const name of ["existsSync", "writeFileSync"]) {
  const real = fs[name];
  fs[name] = (path, ...rest) => real(ours(path), ...rest);
}
fs.statSync = (path, ...rest) => statSync(path === "/.dockerenv" ? "/no/container" : path, ...rest);
fs.readFileSync = (path, ...rest) => (path === "/proc/self/cgroup" ? "" : readFileSync(ours(path), ...rest));
